"""Tensors whose batch axis is not the first for a while, or shares its axis with another: moved, computed with, and
brought back.

Records keep the batch first. A `Turned` value is one of them together with the place where PyTorch has its batch axis,
so that a permutation of axes with the batch among them, and a view that merges the batch with the axis after it (heads,
windows), cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ... import layers as L
from ...plan.shapes import Shape
from .. import algebra, moves, products
from ..functions import Function
from ..records import Refused, Value
from .beside import NORMS, SPACES, among_channels, exchanged, spatial, widened
from .call import Call, Pieces, Records

PERMUTES = ("permute", "transpose", "t", "numpy_T", "mT")
VIEWS = ("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "view_as", "reshape_as")
# fmt: off
ALONG = (  # by dim
    "mean", "sum", "amax", "amin", "max", "min", "select", "slice", "softmax", "log_softmax", "_softmax",
    "_safe_softmax", "cat", "stack", "flip", "roll", "gather", "cumsum", "split", "split_with_sizes", "unbind", "glu",
    "index_select", "var", "var_mean", "std", "norm", "linalg_vector_norm",
)
POINTWISE = (
    "add", "sub", "rsub", "mul", "div", "neg", "pow", "square", "relu", "relu6", "clamp", "clamp_min", "clamp_max",
    "hardtanh", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "hardsigmoid",
    "hardswish", "tanh", "softplus", "softsign", "abs", "maximum", "minimum", "where", "masked_fill", "erf", "exp",
    "sqrt", "rsqrt", "reciprocal", "clone", "detach", "_to_copy", "alias", "contiguous", "type_as", "to", "dropout",
    "expand",
)
MOVES = (
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col", "rot90", "repeat", "repeat_interleave", "diagonal",
)
PADS = ("reflect", "replicate", "circular")
PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm")
BATCH_NORMS = ("_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
ATTENTION = "scaled_dot_product_attention"
# fmt: on


@dataclass(frozen=True)
class Turned:
    """A value, or a function of one, whose batch axis stands before its axis number `axis`; with `outer` the tensor has
    the batch and the value's axis before it as one, with `inner` the batch and the value's axis after it.
    """

    value: Value | Function
    axis: int
    outer: bool = False
    inner: bool = False

    @property
    def place(self) -> int:
        """The tensor's axis that holds the batch."""
        return self.axis - self.outer

    @property
    def n_axes(self) -> int:
        """Of the tensor."""
        return len(self.value.shape) + 1 - self.outer - self.inner

    @property
    def merged(self) -> tuple[int, int]:
        """How many elements the batch's axis holds outside and inside of every sample."""
        shape = self.value.shape
        return shape[self.axis - 1] if self.outer else 1, shape[self.axis] if self.inner else 1

    def full(self, n_batch: int) -> Shape:
        shape, (outside, inside) = self.value.shape, self.merged
        return (*shape[: self.place], outside * n_batch * inside, *shape[self.axis + self.inner :])

    def straight(self, tensor: Any, n_batch: int) -> Any:
        """The tensor that it stands for with the batch axis first, and nothing merged with it."""
        outside, inside = self.merged
        parts = (outside,) * self.outer + (n_batch,) + (inside,) * self.inner
        apart = tensor.reshape(*tensor.shape[: self.place], *parts, *tensor.shape[self.place + 1 :])
        return apart.movedim(self.axis, 0)

    def to_first(self, dim: int) -> int:
        """The number of one of the tensor's other axes where the batch is first."""
        return dim + 1 if dim < self.place else dim + self.outer + self.inner

    def over(self, value: Any, place: int) -> Any:
        """Another value whose batch is merged in the same way, at this place of the tensor."""
        return plain(Turned(value, place + self.outer, self.outer, self.inner))

    def constant(self, value: Any, n_batch: int) -> Any:
        """A constant that meets the tensor, as it meets the value."""
        missing = self.n_axes - value.ndim
        if missing > self.place or missing < 0:
            return value
        value = value.reshape((1,) * missing + tuple(value.shape))
        before, size, after = value.shape[: self.place], value.shape[self.place], value.shape[self.place + 1 :]
        outside, inside = (1, 1) if size == 1 else self.merged
        if size not in (1, outside * n_batch * inside):
            raise Refused(
                f"a constant of shape {tuple(value.shape)} has {size} elements beside the batch at place {self.place}; "
                "bring that to the front before"
            )
        parts = (outside,) * self.outer + (1 if size == 1 else n_batch,) + (inside,) * self.inner
        return value.reshape(*before, *parts, *after).movedim(self.axis, 0)


def plain(x: Turned) -> Any:
    """The value itself where its batch axis is the first and no other."""
    return x if x.axis or x.inner else x.value


def _turned(x: Any) -> Turned:
    return x if isinstance(x, Turned) else Turned(x, 0)


def permuted(records: Records, call: Call) -> Any:
    """The axes in another order, the batch axis as any other."""
    x = _turned(call.self)
    value, n_axes = x.value, x.n_axes
    own = [[x.to_first(d)] for d in range(n_axes)]  # of every axis of the tensor, those of the value, counted from 1
    own[x.place] = list(range(x.axis + 1 - x.outer, x.axis + 1 + x.inner))
    order = list(range(n_axes))
    if call.name == "permute":
        order = [d % n_axes for d in call.dims]
    elif n_axes > 1:
        a, b = {"transpose": (call.get("dim0"), call.get("dim1")), "mT": (-2, -1)}.get(call.name, (0, 1))
        order[a], order[b] = order[b], order[a]
    sample = [k for d in order for k in own[d]]
    if sample != sorted(sample):
        if isinstance(value, Function):
            raise value.refused()
        value = algebra.permuted(records.add, value, [k - 1 for k in sample])
    place = order.index(x.place)
    return plain(Turned(value, sum(len(own[d]) for d in order[:place]) + x.outer, x.outer, x.inner))


def stacked_first(records: Records, call: Call) -> Turned:
    """Side by side along a new axis in front of the batch's."""
    operands = [o if isinstance(o, Value) else records.array(o, "constant operand") for o in call.tensors]
    return Turned(moves.stacked(records.add, operands, 1, records.n_batch), 1)


def repeated(records: Records, call: Call) -> Any:
    """Every sample several times in a row: one more axis beside the samples."""
    value = _turned(call.self)
    if value.axis or value.inner or isinstance(value.value, Function):
        raise Refused("it repeats samples that stand beside something else")
    shape = value.value.shape
    once = algebra.reshaped(records.add, value.value, (1, *shape))
    return Turned(algebra.expanded(records.add, once, (call.repeats, *shape)), 0, inner=True)


def viewed(records: Records, x: Any, full: Shape) -> Any:
    """The same elements under another shape, the batch counted."""
    x = _turned(x)
    n, before = records.n_batch, math.prod(x.value.shape[: x.axis])
    for place, size in enumerate(full):
        outside, rest = divmod(before, math.prod(full[:place]))
        if rest or not outside:
            break
        if size % (outside * n) == 0:
            inside = size // (outside * n)
            parts = tuple(s for s in (outside, inside) if s > 1)
            value = x.value.under((*full[:place], *parts, *full[place + 1 :]))
            return plain(Turned(value, place + (outside > 1), outside > 1, inside > 1))
    raise Refused(f"its result has shape {full}, which tears the batch axis of {n} samples apart")


def turned(records: Records, call: Call, full: Shape, handler: Callable[[Records, Call], Any]) -> Any:
    """A call with turned operands: the same call with the batch axis first, and its result turned.

    Parameters
    ----------
    full : shape of the (first) result, the batch axis counted
    """
    operands = [_turned(o) for o in _operands(call.arguments)]
    places = {0 if call.name == "einsum" else o.axis for o in operands}
    if len(places) > 1 or len({(o.outer, o.inner, o.merged) for o in operands}) > 1:
        raise Refused("it meets tensors whose batch axes stand in different places; transpose one of them first")
    x, n = operands[0], records.n_batch
    if call.name == "einsum":
        return _einsum(records, call, x)
    # the constants of other operators have axes of their own
    with_constants = call.name in (*POINTWISE, *PRODUCTS, "cat", "gather", ATTENTION)
    least = 3 if call.name in PRODUCTS else 1  # a matrix or a vector is the same for all that it meets
    meets = x if with_constants else None
    arguments = {key: _straight(value, meets, least, records.n_batch) for key, value in call.arguments.items()}
    place = x.place
    dim = "dims" if "dims" in arguments else "dim"
    if call.name in ALONG and dim in arguments:
        arguments[dim], place = _along(call.name, arguments[dim], x, len(full))
    elif call.name in ("matmul", "mm") and 0 < place == x.n_axes - 1 and getattr(call.self, "ndim", 0) == 2:
        # weight @ x.t() is a linear layer of x
        if isinstance(x.value, Function):
            raise x.value.refused()
        weight = records.array(call.self, "self operand")
        return x.over(records.add(L.Linear, x.value, weight=weight, axis=x.to_first(place - 1)), place)
    elif call.name in SPACES and place == 0 and isinstance(x.value, Value):
        arguments = {k: v for k, v in widened(call).items() if k != "input"} | {
            k: spatial(records, x.value, call) for k in ("input", "self") if k in arguments
        }
        made = handler(records, Call(call.name, arguments, full[1:], call.users, call.target, call.dtype))
        return _each(made, lambda y: x.over(exchanged(records, y), 0))
    elif call.name in NORMS and place == 0 and isinstance(x.value, Value):
        arguments, shape = among_channels(records, x.value, call), x.value.shape
        made = handler(records, Call(call.name, arguments, full[1:], call.users, call.target, call.dtype))
        return _each(made, lambda y: x.over(algebra.reshaped(records.add, y, shape), 0))
    elif place == 0 and full[0] == x.full(n)[0] and (call.name in MOVES or call.get("mode") in PADS):
        if isinstance(x.value, Function):
            raise x.value.refused()
        call = Call("flip", arguments, call.shape, call.users, _of_parts(x, call, n), call.dtype)  # by its target
    elif call.name in ("pad", "constant_pad_nd") and place < x.n_axes - len(call.pad) // 2:
        arguments.setdefault("mode", "constant")
        if arguments["mode"] != "constant":
            raise Refused(f"only constant padding is read beside the batch, this is {arguments['mode']!r}")
    elif call.name in (*BATCH_NORMS, "prelu") and place != 1:
        arguments["axis"] = x.to_first(1)
    elif call.name == "index" and (indices := _indices(call, x)) is not None:
        arguments["indices"] = indices
    elif (last := _summed(call)) is not None:
        if place >= x.n_axes - last:
            raise Refused("the batch is among the last axes, over which it works; bring it to the front before")
    elif call.name not in POINTWISE or len(full) != x.n_axes:
        what = f"the batch {'within' if x.outer or x.inner else 'at'} place {place}"
        raise Refused(f"its operand has {what}; give it an axis of its own, the first, before this operation")
    parts = tuple(size for size, there in zip(x.merged, (x.outer, x.inner), strict=True) if there)
    shape = (*full[:place], *parts, *full[place + 1 :])
    result = handler(records, Call(call.name, arguments, shape, call.users, call.target, call.dtype))
    if hasattr(result, "new_zeros"):  # nothing, which a cat leaves out
        return result.new_zeros(full)
    if isinstance(result, Pieces):
        return Pieces([partial(_later, x, piece, place) for piece in result])
    return x.over(result, place)


def _each(made: Any, finish: Callable[[Value], Any]) -> Any:
    """A result, or the first of several, with what is done to it."""
    return Pieces([lambda: finish(made[0]())]) if isinstance(made, Pieces) else finish(made)


def _of_parts(x: Turned, call: Call, n_batch: int) -> Callable[..., Any]:
    """An operator that moves elements, of tensors with the batch first and nothing merged with it."""

    def target(**given: Any) -> Any:
        for key, value in call.arguments.items():
            if isinstance(value, Turned):
                given[key] = given[key].movedim(0, x.axis).reshape(x.full(n_batch))
        return x.straight(call.target(**given), n_batch)

    return target


def _einsum(records: Records, call: Call, x: Turned) -> Any:
    """The same sum of operands that have the batch axis first."""
    computed = {i: _turned(o) for i, o in enumerate(call.tensors) if isinstance(o, (Value, Turned, Function))}
    ranks = [computed[i].n_axes if i in computed else o.ndim for i, o in enumerate(call.tensors)]
    places = {i: o.place for i, o in computed.items()}
    equation, place = products.batch_first(call.equation, ranks, places, x.outer + x.inner, leading=False)
    operands: list[Any] = [computed[i].value if i in computed else o for i, o in enumerate(call.tensors)]
    for i, value in enumerate(operands):
        if isinstance(value, Function):
            raise value.refused()
        operands[i] = value if isinstance(value, Value) else records.array(value, "operand")
    return x.over(products.einsum(records.add, equation, operands, records.n_batch), place)


def _summed(call: Call) -> int | None:
    """How many of the last axes an operation works over, or does not keep apart."""
    if call.name in ("linear", "embedding"):
        return int(call.name == "linear")
    if call.name in PRODUCTS:
        right = {"addmm": "mat2", "baddbmm": "batch2", "mm": "mat2", "bmm": "mat2"}.get(call.name, "other")
        return 1 if hasattr(call.arguments[right], "ndim") and call.arguments[right].ndim <= 2 else 2
    if call.name in ("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"):
        return len(call.normalized_shape)
    return 2 if call.name == ATTENTION else None


def _along(name: str, dim: Any, x: Turned, n_after: int) -> tuple[Any, int]:
    """(argument dim with the batch axis first, place of the batch axis in the result)."""
    several = isinstance(dim, list)
    place, n_axes = x.place, x.n_axes + (name == "stack")
    dims = [d % n_axes for d in (dim if several else [dim])]
    if name == "stack":  # the new axis is not one of x's
        moved = [d + 1 if d <= place else d + x.outer + x.inner for d in dims]
        return moved[0], place + (dims[0] <= place)
    if place in dims:
        raise Refused("it works along the batch axis, so that samples would be mixed or taken apart")
    moved = [x.to_first(d) for d in dims]
    return moved if several else moved[0], place - (sum(d < place for d in dims) if n_after < n_axes else 0)


def _indices(call: Call, x: Turned) -> list[Any] | None:
    """Indices with the batch axis first, where one axis other than the batch's is indexed and keeps its place."""
    (dim, index), *more = [(d, i) for d, i in enumerate(call.indices) if i is not None]
    if more or dim == x.place or index.ndim != 1:
        return None
    return [None] * x.to_first(dim) + [index]


def _later(x: Turned, piece: Callable[[], Value], place: int) -> Any:
    return x.over(piece(), place)


def _operands(arguments: dict[str, Any]) -> list[Any]:
    flat = [v for a in arguments.values() for v in (a if isinstance(a, list) else [a])]
    return [v for v in flat if isinstance(v, (Value, Turned, Function))]


def _straight(value: Any, x: Turned | None, least: int, n_batch: int) -> Any:
    """An argument as the batch-first call takes it; constants of enough axes turn with the operand x that they meet."""
    if isinstance(value, Turned):
        return value.value
    if isinstance(value, list):
        return [_straight(v, x, least, n_batch) for v in value]
    return x.constant(value, n_batch) if x is not None and getattr(value, "ndim", 0) >= least else value
