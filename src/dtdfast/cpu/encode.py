"""Steps as C structs: views become offsets and strides, weights and tables pointers.  No decisions, no maths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import vocabulary
from .._kernels import ffi, lib
from ..errors import BackendError
from ..packing import WeightStore
from ..plan.plan import Plan
from ..plan.sliced import Local, Sliced
from ..plan.steps import SIZES, VIEWS, Reals, Step, View, bound_strides, views_among
from ..plan.taps import Phase

PLACES = {
    "scratch": 0, "arena": 1, "x": 2, "start": 3, "outputs": 4, "result": 5, "ledger": 6, "local": 7, "weights": 8,
}  # fmt: skip
"""Of the externals in the table of pointers, which begins with them; behind them what samples bring along."""

ALONE = np.zeros(1, np.int64)
"""The offset of one tap that lies where its output does."""

REALS = {"f4": lib.DTD_F4, "f8": lib.DTD_F8}

WEIGHT_MAPS = {name: getattr(lib, f"DTD_{row.c}") for name, row in vocabulary.WEIGHT_MAPS.items()}
INPUT_MAPS = {name: getattr(lib, f"DTD_{row.c}") for name, row in vocabulary.INPUT_MAPS.items() if row.c is not None}
MULTIPLIERS = {
    "none": lib.DTD_M_NONE, "times": lib.DTD_M_TIMES, "positive": lib.DTD_M_POSITIVE,
    "negative": lib.DTD_M_NEGATIVE, "times positive": lib.DTD_M_TIMES_POSITIVE,
    "times negative": lib.DTD_M_TIMES_NEGATIVE, "sign": lib.DTD_M_SIGN, "absolute": lib.DTD_M_ABSOLUTE,
}  # fmt: skip
FACTORS = {
    "none": lib.DTD_F_NONE, "gate": lib.DTD_F_GATE, "denominator": lib.DTD_F_DENOMINATOR,
    "derivative": lib.DTD_F_DERIVATIVE, "signed": lib.DTD_F_SIGNED, "paired": lib.DTD_F_PAIRED,
}  # fmt: skip
SELECTS = {"all": lib.DTD_ANY_SIGN, "y>0": lib.DTD_POSITIVE, "y<0": lib.DTD_NEGATIVE, "y!=0": lib.DTD_NONZERO}
SIGNS = {"none": lib.DTD_ANY_SIGN, "positive": lib.DTD_POSITIVE, "negative": lib.DTD_NEGATIVE}
NAMES = {
    "weight_map": WEIGHT_MAPS, "input_map": INPUT_MAPS, "multiplier": MULTIPLIERS, "factor_kind": FACTORS,
    "select": SELECTS,
}  # fmt: skip
"""Fields of a step that say by a name what dtd_step says by a number."""
NARROW = {
    "bfloat16": {"NEURON_DENSE": lib.DTD_BFLOAT16, "TAPS_DENSE": lib.DTD_BFLOAT16},
    "mixed": {"NEURON_DENSE": lib.DTD_BFLOAT16_TERMS, "TAPS_DENSE": lib.DTD_BFLOAT16},
}
"""The precision of each product, by that of the program; those of other operations are bound by memory, and float32."""
ACTIVATIONS = {kind: getattr(lib, f"DTD_{kind.upper()}") for kind in vocabulary.KERNELS}


@cache
def _operation(name: str) -> int:
    return int(getattr(lib, f"DTD_{name}"))


_CONSTANTS = {"norm_weight": "other", "norm_bias": "shift", "selector": "other"}
"""Views of dtd_step that are constants of one sample's shape."""
_BIASES = {"bias": "shift", "bias_d": "other"}
"""Vectors, or such views."""
_ARRAYS = {"weights", "window", "bound", "vector", *_BIASES, *_CONSTANTS}
_VIEW = ffi.typeof("dtd_view *")
_NUMBERS = {
    "derivative", "dual", "accumulate", "groups", "repeat", "axis", "winner_bytes", "coefficient", "stabilizer",
    "gamma", "epsilon", "centred",
}  # fmt: skip


def _plain() -> Any:
    """A dtd_step with the fields that a step has where nothing else is said."""
    plain = ffi.new("dtd_step *")
    for key in (*VIEWS, "weight", "bias", "bias_d", "taps", "local"):
        getattr(plain, key).base = -1
    for key in _NUMBERS:
        setattr(plain, key, getattr(Step, key))
    for key, numbers in NAMES.items():
        setattr(plain, key, numbers.get(getattr(Step, key), 0))
    kind, plain.act_alpha, plain.act_beta = Step.activation
    plain.activation, plain.precision = ACTIVATIONS[kind], lib.DTD_FLOAT32
    return plain


@dataclass(eq=False, slots=True)
class _Form:
    """Which fields of a step are what, for all steps that have the same ones."""

    views: tuple[str, ...]
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    names: tuple[str, ...]
    facts: Callable[[dict[str, Any]], Any]  # what it says in numbers and names


@lru_cache(1024)
def _form(keys: tuple[str, ...]) -> _Form:
    arrays, numbers, names = (tuple(key for key in keys if key in some) for some in (_ARRAYS, _NUMBERS, NAMES))
    others = (key for key in ("activation", "sign", "size", "lrn") if key in keys)
    return _Form(views_among(keys), arrays, numbers, names, itemgetter("op", *numbers, *names, *others))


class Encoded:
    """A plan's steps in C, and the arrays that they point into."""

    def __init__(self, plan: Plan, store: WeightStore, precision: str) -> None:
        self._precisions = NARROW.get(precision, {})
        self._n, self._t, self._store = plan.n, plan.t, store
        self.constants: list[NDArray[Any]] = []  # kept alive; pointers follow the externals in the table
        self.places = PLACES | {u.external: len(PLACES) + k for k, u in enumerate(plan.program.supplied)}
        self._places: dict[int, int] = {}  # of constants, by id
        self._alone = self._constant(ALONE)
        self.starts, steps = [0], list[Step]()  # of the plan's steps, those in C from which on they are
        for step in (*plan.forward, *plan.relevance):
            steps.append(step)
            if isinstance(step, Sliced):
                steps += step.inner
            self.starts.append(len(steps))
        self._local = plan.local
        self.c_steps = ffi.new("dtd_step[]", max(1, len(steps)))
        self._counts = {"n": self._n, "nt": self._n * self._t, "1": 1}
        self._views: dict[int, Any] = {}  # of whole buffers, by their ids
        self._alike: dict[tuple[Any, ...], Any] = {}  # steps without views and arrays, by their facts
        self._layouts: dict[tuple[Any, ...], Any] = {}  # views without a place, by what sizes and strides hang on
        self._offsets: dict[tuple[int, tuple[int, ...]], NDArray[np.int64]] = {}  # of taps, by ids of their phases
        for number, step in enumerate(steps):
            try:
                self._encode(number, step)
            except KeyError as unknown:
                raise BackendError(f"{step.op}: the CPU's kernels do not know {unknown}") from None
        for number, step in zip(self.starts, (*plan.forward, *plan.relevance), strict=False):
            if isinstance(step, Sliced):
                self._slice(self.c_steps + number, step)
        self.spans = spans(steps)
        first = plan.n_constant
        self.constant_runs = plan.segments(plan.forward[:first], 0) if first else []
        self.forward_runs = plan.segments(plan.forward[first:], first)
        self.relevance_runs = plan.segments(plan.relevance, len(plan.forward))
        absent = [ffi.NULL] * len(self.places)
        self.n_bases = len(absent) + len(self.constants)
        self._bases = ffi.new("void *[]", absent + [ffi.from_buffer(c) if c.size else ffi.NULL for c in self.constants])

    def bases(self, arena: NDArray[Any], nbytes: int, pieces: int) -> Any:
        """A table of pointers, but for the externals; one after another for pieces of a batch, each with so many bytes
        of the arena.
        """
        bases, size = ffi.new("void *[]", pieces * self.n_bases), ffi.sizeof(self._bases)
        ffi.memmove(bases, ffi.buffer(self._bases)[:] * pieces, pieces * size)
        start = ffi.from_buffer(arena)
        for piece in range(pieces):
            bases[piece * self.n_bases + PLACES["arena"]] = start + piece * nbytes
        return bases

    def body(self, isa: int, number: int, bases: Any, choice: int) -> str:
        """The name of the body that runs a step, for a choice of dtd_body; "" if there is no such choice."""
        number = self.starts[number]
        name = lib.dtd_body(isa, self.spans[number][0], self.c_steps + number, bases, choice)
        return "" if name == ffi.NULL else ffi.string(name).decode()

    def bodies(self, isa: int) -> tuple[str, ...]:
        """Of every step, the body that runs it by its shape, and those that run instead if x is mostly 0."""
        bases = ffi.new("void *[]", list(self._bases))
        bases[PLACES["scratch"]] = bases  # not read: an instruction set that wants scratch memory has it
        result, c_steps, none = [], self.c_steps, ffi.NULL
        for number in self.starts[:-1]:
            real = self.spans[number][0]
            names: list[str] = []
            while (name := lib.dtd_body(isa, real, c_steps + number, bases, len(names))) != none:  # DTD_BY_SHAPE is 0
                names.append(ffi.string(name).decode())
            sparse = " or ".join(names[1:])
            result.append(f"{names[0]} (x mostly 0: {sparse})" if sparse else "".join(names))
        return tuple(result)

    def _constant(self, array: NDArray[Any]) -> int:
        """The place of an array in the table of pointers."""
        place = self._places.get(id(array))
        if place is None:
            place = self._places[id(array)] = len(self.places) + len(self.constants)
            self.constants.append(array)
        return place

    def _encode(self, number: int, step: Step) -> None:
        own, known = vars(step), self._views
        form = _form(tuple(own))
        phase = own.get("phase")
        facts = form, form.facts(own), None if phase is None else (phase.x_step, phase.alone)
        like = self._alike.get(facts)
        if like is None:
            like = self._alike[facts] = self._of_facts(step, form)
        self.c_steps[number] = like
        c = self.c_steps[number]
        for key in form.views:
            if (view := own[key]) is not None:
                found = known.get(id(view.buffer)) if view.whole else None
                setattr(c, key, self._view(view) if found is None else found)
        for key in form.arrays:
            if own[key] is not None:
                self._array(c, step, key, own[key])
        if step.table is not None:
            c.n_taps, c.taps.base = len(step.table), self._constant(step.table)
        elif phase is not None and not phase.alone:
            assert step.x is not None
            self._taps(c, phase, step.x)
        elif step.op == "CLEAR_BORDER":
            c.border = [width for side in step.out.buffer.border for width in side]

    def _of_facts(self, step: Step, form: _Form) -> Any:
        """A dtd_step with what a step says in numbers and names, and the one tap of a phase that has no more."""
        c = _plain()
        c.op, c.precision = _operation(step.op), self._precisions.get(step.op, lib.DTD_FLOAT32)
        for key in form.numbers:
            setattr(c, key, getattr(step, key))
        for key in form.names:
            setattr(c, key, NAMES[key][getattr(step, key)])
        kind, c.act_alpha, c.act_beta = step.activation
        c.activation = ACTIVATIONS[kind]
        if step.phase is not None:
            c.x_step = step.phase.x_step
            if step.phase.alone:
                c.n_taps, c.taps.base = 1, self._alone
        if step.op == "DIVIDE":
            c.select = SIGNS[step.sign]
        elif step.op == "LRN":
            c.lrn_size, (c.lrn_k, c.lrn_alpha, c.lrn_beta) = step.size, step.lrn
        return c[0]

    def _slice(self, c: Any, step: Sliced) -> None:
        """A fused step and those behind it: along which axes their views are cut."""
        c[0].n_steps, c[0].block = len(step.inner), step.block
        c[0].local = (PLACES["local"], self._local // SIZES[step.real])
        for number, cuts in enumerate(step.cuts, 1):
            for key, axis in cuts.items():
                getattr(c[number], key).cut = axis
        if step.ranges is not None:
            c[0].n_taps, c[0].taps.base = len(step.ranges), self._constant(np.array(step.ranges, np.int64))
            for number, spans in enumerate(step.spans, 1):
                for key, axis in spans.items():
                    getattr(c[number], key).span = axis
        c[0].out = c[1].out

    def _array(self, c: Any, step: Step, key: str, array: Any) -> None:
        """Weights, or other numbers that a step brings along."""
        if key == "weights":
            c.weight.base = self._constant(self._store.get(array))
        elif key == "window":
            self._window(c.scale, array)
        elif key == "bound":
            self._bound(c.x if step.op == "MOVE" else c.m, step, array)
        elif key == "vector" or (key in _BIASES and array.ndim == 1):
            getattr(c, "weight" if key == "vector" else key).base = self._constant(array)
        else:  # which varies along other axes than the channels too
            self._bound(getattr(c, _BIASES[key] if key in _BIASES else _CONSTANTS[key]), step, array)

    def _view(self, view: View) -> Any:
        """A dtd_view; one for all views of a whole buffer, made from one for all buffers of its layout."""
        buffer = view.buffer
        if view.whole:  # five axes are not needed to find it
            (offset, strides, per_sample), shape = buffer.strides(), buffer.shape
        else:
            offset, shape, strides, per_sample = view.sample_layout()
        like = self._layouts.get(key := (buffer.batch, shape, strides, per_sample))
        if like is None:
            _, shape, strides = view.layout()
            axes = (self._counts[buffer.batch], *shape), (0 if buffer.batch == "1" else per_sample, *strides)
            like = self._layouts[key] = ffi.new(_VIEW, (0, 0, *axes))[0]
        found = ffi.new(_VIEW, like)[0]
        root = buffer if buffer.alias is None else buffer.root
        if root.external:
            found.base, found.offset = self.places[root.external], offset
        else:
            found.base = PLACES["local" if isinstance(root, Local) else "arena"]
            found.offset = root.offset // SIZES[root.dtype] + offset
        if view.whole:
            self._views[id(buffer)] = found
        return found

    def _window(self, field: Any, window: Reals) -> None:
        d, h, w = window.shape
        field.base = self._constant(window)
        field.shape = [1, 1, d, h, w, 1]
        field.stride = [0, 0, h * w, w, 1, 0]

    def _bound(self, field: Any, step: Step, constant: Reals) -> None:
        """A constant of one sample's shape, repeated along axes of size 1."""
        field.base = self._constant(constant)
        field.shape = [1, *step.domain.layout()[1]]
        field.stride = [0, *bound_strides(constant, step.domain.buffer.shape)]
        if step.op == "MOVE":
            field.shape = list(step_shape(step, self._n, self._t))

    def _taps(self, c: Any, phase: Phase, x: View) -> None:
        """Element offsets of the taps in x, and x's strides multiplied by its step."""
        _, _, strides = x.layout()
        key = id(phase), strides
        offsets = self._offsets.get(key)
        if offsets is None:
            places = np.array([offset for _, offset in phase.taps], np.int64).reshape(-1, 3)
            offsets = self._offsets[key] = places @ np.array(strides[1:4], np.int64)
        c.n_taps = len(offsets)
        c.taps.base = self._constant(offsets)
        if phase.x_step != (1, 1, 1):
            for a in range(3):
                c.x.stride[2 + a] = strides[1 + a] * phase.x_step[a]


def spans(steps: list[Step]) -> list[tuple[int, int]]:
    """Of every step, the type of its run and the end of the steps from it on that are of one type."""
    result, span = list[tuple[int, int]](), (-1, 0)
    for number in range(len(steps) - 1, -1, -1):
        real = REALS[steps[number].real]
        if real != span[0]:
            span = real, number + 1
        result.append(span)
    return result[::-1]


def step_shape(step: Step, n: int, t: int) -> tuple[int, ...]:
    """The six sizes of a step's result."""
    _, shape, _ = step.out.layout()
    return ({"n": n, "nt": n * t, "1": 1}[step.out.buffer.batch], *shape)
