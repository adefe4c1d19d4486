"""Readers of the ONNX operators that are neurons, pools, normalisations or activations: one function per operator."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ... import layers as L
from ...budget import require
from ..algebra import scaled
from ..moves import resampled
from ..records import Refused, Value
from .activations import OPERATORS as ACTIVATIONS
from .arithmetic import absolute, negative
from .graph import Array, Node, Reader, rank, space, weights
from .moves import MOST, reshaped

Pairs = tuple[tuple[int, int], ...]

# ------------------------------------------------------------------------------------------------------- geometry


def _padding(node: Node, size: tuple[int, ...], reach: tuple[int, ...], stride: tuple[int, ...]) -> Pairs:
    """Attribute pads, or what auto_pad makes of it: ⌈size / stride⌉ windows, an odd element after (UPPER) or before
    (LOWER).
    """
    n = len(size)
    pads, auto = node.integer_list("pads"), node.text("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return _pairs(pads, n)
    if auto == "VALID":
        return ((0, 0),) * n
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refused(f"attribute auto_pad is {auto!r:.40}")
    node.layers.same, result = True, []
    for length, window, step in zip(size, reach, stride, strict=True):
        total = max((math.ceil(length / step) - 1) * step + window - length, 0)
        less, more = total // 2, total - total // 2
        result.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return tuple(result)


def _pairs(pads: tuple[int, ...] | None, n: int) -> Pairs:
    """All before, then all after, as pairs."""
    if pads is None:
        return ((0, 0),) * n
    if len(pads) != 2 * n:
        raise Refused(f"attribute pads is {pads}, expected {2 * n} integers")
    return tuple(zip(pads[:n], pads[n:], strict=True))


def _window(
    node: Node, kernel: tuple[int, ...], size: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], Pairs]:
    """Strides, dilations and padding of windows."""
    n = len(kernel)
    stride, dilation = node.per_axis("strides", n, 1), node.per_axis("dilations", n, 1)
    if min((*kernel, *stride, *dilation)) < 1:
        raise Refused(f"kernel {kernel}, strides {stride} and dilations {dilation} must be positive")
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    return stride, dilation, _padding(node, size, reach, stride)


# -------------------------------------------------------------------------------------------- layers with weights


def _kernel_of(node: Node, x: Value, weight: Array) -> tuple[int, ...]:
    n = len(space(x))
    if weight.ndim != n + 2 or weight.size == 0:
        raise Refused(f"its weight has shape {weight.shape}, but its input has {n} spatial axes")
    kernel: tuple[int, ...] = weight.shape[2:]
    if node.per_axis("kernel_shape", n, 0) not in (kernel, (0,) * n):
        raise Refused(f"attribute kernel_shape differs from its weight's shape {weight.shape}")
    pads, auto = node.integer_list("pads"), node.text("auto_pad", "NOTSET")
    if auto != "NOTSET" and any(pads or ()):
        raise Refused(f"it has pads {pads} beside auto_pad {auto!r:.40}; one of them is expected")
    return kernel


def _bias(node: Node) -> Array | None:
    bias = node.optional(2, "its bias")
    return None if bias is None else weights(bias, "its bias")


def conv(node: Node) -> Value:
    x, weight = node.value(), weights(node.constant(1, "its weight"), "its weight")
    kernel = _kernel_of(node, x, weight)
    stride, dilation, padding = _window(node, kernel, space(x))
    groups = node.integer("group", 1)
    return node.add(
        L.Conv, x, weight=weight, bias=_bias(node), stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def conv_transpose(node: Node) -> Value:
    x, weight = node.value(), weights(node.constant(1, "its weight"), "its weight")
    kernel, size = _kernel_of(node, x, weight), space(x)
    n = len(size)
    stride, dilation = node.per_axis("strides", n, 1), node.per_axis("dilations", n, 1)
    extra, wanted, auto = (
        node.per_axis("output_padding", n, 0),
        node.integer_list("output_shape"),
        node.text("auto_pad", "NOTSET"),
    )
    padding = _pairs(node.integer_list("pads"), n)
    if auto in ("SAME_UPPER", "SAME_LOWER") and wanted is None:
        wanted = tuple(s * t for s, t in zip(size, stride, strict=True))
    if wanted is not None:
        if auto == "NOTSET" or node.integer_list("output_shape"):
            node.layers.fixed = f"an output of the sizes {wanted}"
        if len(wanted) != n:
            raise Refused(f"attribute output_shape is {wanted}, expected {n} integers")
        reach = (d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        totals = [t * (s - 1) + e + r - w for t, s, e, r, w in zip(stride, size, extra, reach, wanted, strict=True)]
        if min(totals) < 0:
            raise Refused(f"its output of {wanted} elements is larger than its windows reach; give output_padding")
        padding = tuple((t // 2, t - t // 2) if auto == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals)
    elif auto == "VALID":
        padding = ((0, 0),) * n
    elif auto != "NOTSET":
        raise Refused(f"attribute auto_pad is {auto!r:.40}")
    groups = node.integer("group", 1)
    return node.add(
        L.ConvTranspose, x, weight=weight, bias=_bias(node), stride=stride, padding=padding, output_padding=extra,
        dilation=dilation,
        groups=groups,
    )  # fmt: skip


def gemm(node: Node) -> Value:
    """alpha · A B + beta · C, with A what is computed and B, C constants."""
    weight = weights(node.constant(1, "its weight"), "its weight")
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if node.integer("transA", 0):
        raise Refused("transA would mix the samples of a batch")
    if weight.ndim != 2:
        raise Refused(f"its weight has shape {weight.shape}, expected two axes")
    weight = weight if node.integer("transB", 0) else weight.T
    bias = _bias(node)
    node.integer("broadcast", 0)  # of opset 6, where C is what every sample gets all the same
    if bias is not None:
        if bias.ndim > 2 or bias.size not in (1, len(weight)) or (bias.ndim == 2 and len(bias) != 1):
            raise Refused(f"C has shape {bias.shape}, expected one number per output ({len(weight)})")
        bias = np.broadcast_to(bias.ravel() * bias.dtype.type(beta), (len(weight),))
    return node.add(
        L.Linear, node.value(), weight=weight if alpha == 1 else weight * weight.dtype.type(alpha), bias=bias
    )


def batch_norm(node: Node) -> Value:
    # from opset 7 on, further outputs say that it trains, whether they are read or not
    testing = len(node.outputs) == 1 if node.opset >= 7 else node.integer("is_test", 0) and not any(node.outputs[1:])
    if node.integer("training_mode", 0) or not testing:
        raise Refused("it is in training mode; export the model for inference")
    if node.integer("spatial", 1) != 1:
        raise Refused("attribute spatial is 0: it normalises every element by itself, which has no record")
    scale, shift, mean, variance = (
        weights(node.constant(i, what), what)
        for i, what in enumerate(("its scale", "its bias", "its mean", "its variance"), 1)
    )
    x = node.value()
    if node.channels != 1:
        factor = scale / np.sqrt(variance.astype(np.float64) + node.number("epsilon", 1e-5))
        column = (-1, *(1,) * (len(x.shape) - node.channels))
        return scaled(node.add, x, factor.reshape(column), (shift - mean * factor).reshape(column))
    return node.add(
        L.BatchNorm,
        x,
        mean=mean,
        variance=variance,
        weight=scale,
        bias=shift,
        eps=node.number("epsilon", 1e-5),
    )


def lrn(node: Node) -> Value:
    size, alpha, beta, k = (
        node.integer("size", 0),
        node.number("alpha", 1e-4),
        node.number("beta", 0.75),
        node.number("bias", 1.0),
    )
    return node.add(L.LRN, node.value(), size=size, alpha=alpha, beta=beta, k=k)


# ----------------------------------------------------------------------------------------------------------- pools


def _pool_window(node: Node, x: Value) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Pairs]:
    kernel = node.per_axis("kernel_shape", len(space(x)), 0)
    window = _window(node, kernel, space(x))
    if set(window[1]) != {1} and node.text("auto_pad", "NOTSET").startswith("SAME"):
        # the specification widens the window before it pads, onnxruntime does not
        raise Refused("auto_pad SAME with dilations has no one meaning for a pool; give pads")
    return kernel, *window


def max_pool(node: Node) -> Value:
    x = node.value()
    if any(node.outputs[1:]):
        raise Refused("its second output, the positions of the winners, has no record")
    kernel, stride, dilation, padding = _pool_window(node, x)
    ceil_mode = bool(node.integer("ceil_mode", 0))
    return node.add(L.MaxPool, x, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


def average_pool(node: Node) -> Value:
    x = node.value()
    kernel, stride, dilation, padding = _pool_window(node, x)
    ceil_mode, include = bool(node.integer("ceil_mode", 0)), bool(node.integer("count_include_pad", 0))
    if set(dilation) != {1}:
        axes = zip(space(x), kernel, stride, dilation, padding, strict=True)
        return resampled(node.add, x, [_means(*axis, ceil_mode=ceil_mode, include=include) for axis in axes])
    return node.add(
        L.AvgPool, x, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=include
    )


def _means(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], *, ceil_mode: bool, include: bool
) -> Array:
    """Of windows with gaps along one axis, as a matrix (windows, size): a mean over several axes is one mean after
    another.

    It is over the elements of a window that are inside, or with `include` over those inside or in the padding.
    """
    before, after = pads
    span = size + before + after - dilation * (kernel - 1) - 1
    if span <= (-stride if ceil_mode else -1) or max(kernel, span // stride) > MOST:
        raise Refused(
            f"its window spans {dilation * (kernel - 1) + 1} elements, its padded input has {size + before + after}"
        )
    count = span // stride + 1
    if ceil_mode and span % stride and count * stride < size + before:
        count += 1  # windows that start beyond the input and the padding before it are dropped
    require(8 * count * (size + kernel), "AveragePool: its matrix")
    taps = np.arange(count)[:, None] * stride - before + np.arange(kernel) * dilation
    inside = (taps >= 0) & (taps < size)
    held = taps < size + after if include else inside
    if not held.any(1).all():
        raise Refused("one of its windows lies in the padding alone")
    result = np.zeros((count, size))
    rows, columns = np.nonzero(inside)
    result[rows, taps[rows, columns]] = 1 / held.sum(1)[rows]
    return result


def global_average_pool(node: Node) -> Value:
    return node.add(L.GlobalAvgPool, node.value())


def global_max_pool(node: Node) -> Value:
    x = node.value()
    return node.add(L.MaxPool, x, kernel=space(x))


def reduce(node: Node, kind: str, since: int) -> Value:
    """Mean, sum or largest over any axes but the batch's."""
    return _reduced(node, node.value(), kind, since)


def reduce_min(node: Node) -> Value:
    return negative(node, _reduced(node, negative(node, node.value()), "max", 18))


def reduce_l1(node: Node) -> Value:
    return _reduced(node, absolute(node), "sum", 18)


def _reduced(node: Node, x: Value, kind: str, since: int) -> Value:
    given, keep = node.setting("axes", 1, since), bool(node.integer("keepdims", 1))
    noop = bool(node.integer("noop_with_empty_axes", 0))
    if not given:
        if noop:
            return x
        raise Refused("it reduces all axes, the batch too")
    axes = sorted({node.axis(a, rank(x)) for a in given})
    if kind == "mean" and len(x.shape) in (2, 3, 4) and axes == list(range(2, rank(x))):
        made = node.add(L.GlobalAvgPool, x)
    else:
        made = node.add(L.Reduce, x, kind=kind, axes=tuple(axes), keepdims=keep or len(axes) == len(x.shape))
    full = node.full(x)
    return reshaped(node, made, tuple(1 if a in axes else s for a, s in enumerate(full) if keep or a not in axes))


# ----------------------------------------------------------------------------------------------------- activations


def relu(node: Node) -> Value:
    return node.add(L.ReLU, node.value())


def gelu(node: Node) -> Value:
    approximate = node.text("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Refused(f"attribute approximate is {approximate!r:.40}")
    return node.add(L.Activation, node.value(), kind="gelu" if approximate == "none" else "gelu_tanh")


def softmax(node: Node, log: bool = False) -> Value:
    """Or its logarithm. Before opset 13 all axes from `axis` on are one."""
    x = node.value()
    axis = node.axis(node.integer("axis", -1 if node.opset >= 13 else 1), rank(x))
    if node.opset >= 13 or all(s == 1 for s in x.shape[axis:]):
        return node.add(L.Softmax, x, axis=axis, log=log)
    full = node.full(x)
    joined = reshaped(node, x, (*full[:axis], math.prod(full[axis:])))
    return reshaped(node, node.add(L.Softmax, joined, axis=axis, log=log), full)


OPERATORS: dict[str, Reader] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "BatchNormalization": batch_norm,
    "LRN": lrn,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "ReduceMean": partial(reduce, kind="mean", since=18),
    "ReduceMax": partial(reduce, kind="max", since=18),
    "ReduceMin": reduce_min,
    "ReduceSum": partial(reduce, kind="sum", since=13),
    "ReduceL1": reduce_l1,
    "Relu": relu,
    **ACTIVATIONS,
    "Gelu": gelu,
    "Softmax": softmax,
    "LogSoftmax": partial(softmax, log=True),
}
