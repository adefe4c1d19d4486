"""Steps as C structs: views become offsets and strides, weights and tables pointers.  No decisions, no maths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
from ..plan.steps import (
    NO_BORDER,
    SIZES,
    STEP_FIELDS,
    VIEWS,
    VIEWS_AMONG,
    Buffer,
    Reals,
    Step,
    View,
    bound_strides,
)
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
_VECTORS = {"weights": "weight", "vector": "weight"}
_REFS = _VECTORS | {key: key for key in _BIASES}
"""Arrays that have a place alone where they are vectors."""
_ARRAYS = {*_REFS, *_CONSTANTS, "window", "bound", "table"}
_NUMBERS = {
    "derivative", "dual", "accumulate", "groups", "repeat", "axis", "winner_bytes", "coefficient", "stabilizer",
    "gamma", "epsilon", "centred",
}  # fmt: skip
_OTHERS = {"activation", "sign", "size", "lrn"}
"""Numbers and names too, of which one field makes several."""
_UNREAD = {"unit", "macs", "within"}
KNOWN = {"op", "phase", *VIEWS, *_ARRAYS, *_NUMBERS, *NAMES, *_OTHERS, *_UNREAD}
if KNOWN != STEP_FIELDS:  # steps that differ in a field that is not listed would be taken for one another
    raise ImportError(f"fields of a step that are not encoded, or not there: {', '.join(KNOWN ^ STEP_FIELDS)}")

WORD = 8
"""Bytes of a place, or of an offset behind it."""
WORDS = ffi.sizeof("dtd_step") // WORD

_WORDS_OF: dict[str, tuple[int, ...]] = {key: (at := ffi.offsetof("dtd_step", key) // WORD, at + 1) for key in VIEWS}
_WORDS_OF |= {key: (ffi.offsetof("dtd_step", ref) // WORD,) for key, ref in _REFS.items()}
"""The words of a step that say where a view or an array lies."""


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


_PLAIN = _plain()


class _Form:
    """Which fields of a step are what, for all steps that have the same ones."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.views = [key for key in VIEWS if key in keys]
        self.arrays, self.numbers, self.names, self.others = (
            [key for key in keys if key in some] for some in (_ARRAYS, _NUMBERS, NAMES, _OTHERS)
        )
        self.seen = VIEWS_AMONG[keys]
        self.facts = itemgetter("op", *self.numbers, *self.names, *self.others)
        self.words = _words_of(self.views + self.arrays)


def _words_of(keys: list[str]) -> tuple[int, ...]:
    """Those of these views and arrays."""
    return tuple(word for key in keys for word in _WORDS_OF.get(key, ()))


class _Forms(dict[tuple[str, ...], _Form]):
    """By the fields that a step has."""

    def __missing__(self, keys: tuple[str, ...]) -> _Form:
        self[keys] = form = _Form(keys)
        return form


_FORMS = _Forms()


@dataclass(eq=False, slots=True)
class _Like:
    """A step of which others are copies in C, but for the words that say where something lies."""

    number: int
    first: int  # the number of that step
    real: int  # the type of its run
    words: tuple[int, ...]
    late: tuple[str, ...]  # fields that say more than where


class Rows:
    """Steps as rows of words. A network repeats its layers, so most rows are copies of another one, and differ in
    places and offsets alone: these are written at once.
    """

    def __init__(self, plan: Plan, store: WeightStore, precisions: dict[str, int], places: dict[str, int]) -> None:
        self._precisions, self._places, self._store, self._local = precisions, places, store, plan.local
        self._counts = {"n": plan.n, "nt": plan.n * plan.t, "1": 1}
        self.constants: list[NDArray[Any]] = []
        # of every step, the number of what it is like; below 0 where it says more
        self.alike: list[int] = []
        self.reals: list[int] = []  # the type of its run
        self._values: list[int] = []  # of every step, the words that are its own
        self._late: list[tuple[int, Step, str]] = []
        self._known: dict[int, int] = {}  # the place of a constant, or of weights, by its id
        self._views: dict[int, tuple[int, tuple[int, int]]] = {}  # layout and place of whole buffers, by their ids
        self._likes: dict[tuple[Any, ...], _Like] = {}
        self._kinds: dict[tuple[Any, ...], tuple[int, int, int, int]] = {}  # `_layout` of buffers
        self._facts: dict[tuple[Any, ...], Any] = {}  # `_of_facts`
        self._layouts: dict[tuple[Any, ...], int] = {}
        self._shapes: list[Any] = [None]  # of every layout, from 1 on, a dtd_view
        self._offsets: dict[tuple[int, tuple[int, ...]], NDArray[np.int64]] = {}  # of taps, by ids of their phases

    def _add(self, step: Step) -> None:
        own, views, values = vars(step), self._views, self._values
        form, phase = _FORMS[tuple(own)], own.get("phase")
        key: list[Any] = [form, form.facts(own), None if phase is None else phase.alone or id(phase)]
        for view in form.seen(own):
            if view is None:
                key.append(None)
            else:
                layout, place = (views.get(id(view.buffer)) if view.whole else None) or self._view(view)
                key.append(layout)
                values += place
        for name in form.arrays:
            array = own[name]
            if array is None or not (name in _VECTORS or (name in _BIASES and array.ndim == 1)):
                key.append(None if array is None else False)
                continue
            if (lies := self._known.get(id(array))) is None:
                lies = self._known[id(array)] = self._constant(self._store.get(array) if name == "weights" else array)
            key.append(True)
            values.append(lies)
        like = self._likes.get(found := tuple(key))
        if like is None:
            like = self._likes[found] = self._like(step, form, found[:2], key[3:])
        if like.late:
            self._late += [(len(self.alike), step, name) for name in like.late]
        self.alike.append(like.number)

    def _like(self, step: Step, form: _Form, facts: Any, marks: list[Any]) -> _Like:
        """What a step says but for places: numbers and names, layouts, and the taps of its phase."""
        if (known := self._facts.get(facts)) is None:
            known = self._facts[facts] = self._of_facts(step, form)
        number = len(self.alike)
        self._c_steps[number] = known
        c = self._c_steps[number]
        for key, layout in zip(form.views, marks, strict=False):
            if layout is not None:
                setattr(c, key, self._shapes[layout])
        if step.phase is not None:
            c.x_step = step.phase.x_step
            if step.table is None:
                assert step.x is not None
                self._taps(c, step.phase, step.x)
        if step.op == "CLEAR_BORDER":
            c.border = [width for side in step.out.buffer.border for width in side]
        words, keys = form.words, form.views + form.arrays
        late: tuple[str, ...] = ()
        if None in marks or False in marks:  # no layout has the number 0
            late = tuple(key for key, mark in zip(keys, marks, strict=True) if mark is False)
            words = _words_of([key for key, mark in zip(keys, marks, strict=True) if mark])
        if step.op == "SLICED":
            late = (*late, "inner")
        return _Like(len(self._likes), number, REALS[step.real], words, late)

    def _of_facts(self, step: Step, form: _Form) -> Any:
        """A dtd_step with what a step says in numbers and names."""
        c = ffi.new("dtd_step *", _PLAIN[0])
        c.op, c.precision = _operation(step.op), self._precisions.get(step.op, lib.DTD_FLOAT32)
        for key in form.numbers:
            setattr(c, key, getattr(step, key))
        for key in form.names:
            setattr(c, key, NAMES[key][getattr(step, key)])
        if form.others:
            kind, c.act_alpha, c.act_beta = step.activation
            c.activation, c.select = ACTIVATIONS[kind], c.select or SIGNS[step.sign]
            c.lrn_size, (c.lrn_k, c.lrn_alpha, c.lrn_beta) = step.size, step.lrn
        return c[0]

    def written(self, steps: list[Step]) -> Any:
        """All of them in C."""
        c_steps = self._c_steps = ffi.new("dtd_step[]", max(1, len(steps)))
        for step in steps:
            try:
                self._add(step)
            except KeyError as unknown:
                raise BackendError(f"{step.op}: the CPU's kernels do not know {unknown}") from None
        likes = [*self._likes.values()]
        self.reals = [*map([like.real for like in likes].__getitem__, self.alike)]
        if steps:
            rows = np.frombuffer(ffi.buffer(c_steps), np.int64).reshape(-1, WORDS)
            numbers, words = np.array(self.alike), np.full((len(likes), max(len(like.words) for like in likes)), -1)
            np.take(rows[[like.first for like in likes]], numbers, axis=0, out=rows, mode="clip")
            for like in likes:
                words[like.number, : len(like.words)] = like.words
            own = words[numbers]
            places = own + np.arange(0, rows.size, WORDS)[:, None]
            rows.reshape(-1)[places[own >= 0]] = self._values
        for number, step, key in self._late:
            if isinstance(step, Sliced):
                self._slice(c_steps + number, step)
            else:
                self._array(c_steps[number], step, key, getattr(step, key))
            self.alike[number] = -1 - number
        return c_steps

    def _constant(self, array: NDArray[Any]) -> int:
        """The place of an array in the table of pointers."""
        place = self._known.get(id(array))
        if place is None:
            place = self._known[id(array)] = len(self._places) + len(self.constants)
            self.constants.append(array)
        return place

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
        """Numbers that a step brings along, as a view."""
        if key == "table":
            c.n_taps, c.taps.base = len(array), self._constant(array)
        elif key == "window":
            self._window(c.scale, array)
        elif key == "bound":
            self._bound(c.x if step.op == "MOVE" else c.m, step, array)
        else:  # which varies along other axes than the channels too
            self._bound(getattr(c, _BIASES[key] if key in _BIASES else _CONSTANTS[key]), step, array)

    def _view(self, view: View) -> tuple[int, tuple[int, int]]:
        """The number of its layout, and where it lies: base and offset."""
        buffer = view.buffer
        if not view.whole or buffer.alias is not None or type(buffer) is not Buffer:
            found, root = self._layout(view), buffer.root
        else:  # what its layout hangs on
            border, root = None if buffer.border is NO_BORDER else buffer.border, buffer
            kind = buffer.batch, buffer.dtype, buffer.shape, buffer.plain, buffer.external, border
            if (known := self._kinds.get(kind)) is None:
                known = self._kinds[kind] = self._layout(view)
            found = known
        layout, base, first, size = found
        result = layout, (base, root.offset // size + first)
        if view.whole:
            self._views[id(buffer)] = result
        return result

    def _layout(self, view: View) -> tuple[int, int, int, int]:
        """The number of its layout, its base, and the first of its elements and their bytes in the root's memory."""
        buffer, root = view.buffer, view.buffer.root
        offset, shape, strides, per_sample = view.sample_layout()
        key = buffer.batch, root.dtype, shape, strides, per_sample, buffer.border
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = len(self._shapes)
            axes = (self._counts[buffer.batch], *shape), (0 if buffer.batch == "1" else per_sample, *strides)
            self._shapes.append(ffi.new("dtd_view *", (0, 0, *axes))[0])
        base = self._places[root.external or ("local" if isinstance(root, Local) else "arena")]
        return layout, base, offset, SIZES[root.dtype]

    def _window(self, field: Any, window: Reals) -> None:
        d, h, w = window.shape
        field.base = self._constant(window)
        field.shape = [1, 1, d, h, w, 1]
        field.stride = [0, 0, h * w, w, 1, 0]

    def _bound(self, field: Any, step: Step, constant: Reals) -> None:
        """A constant of one sample's shape, repeated along axes of size 1."""
        field.base = self._constant(constant)
        _, shape, _ = step.domain.layout()
        field.shape = [1, *shape]
        field.stride = [0, *bound_strides(constant, step.domain.buffer.shape)]
        if step.op == "MOVE":
            field.shape = [self._counts[step.out.buffer.batch], *shape]

    def _taps(self, c: Any, phase: Phase, x: View) -> None:
        """Element offsets of the taps in x, and x's strides multiplied by its step."""
        if phase.alone:
            c.n_taps, c.taps.base = 1, self._constant(ALONE)
            return
        _, _, strides = x.layout()
        key = id(phase), strides
        offsets = self._offsets.get(key)
        if offsets is None:
            places = np.array([offset for _, offset in phase.taps], np.int64).reshape(-1, 3)
            offsets = self._offsets[key] = places @ np.array(strides[1:4], np.int64)
        c.n_taps = len(offsets)
        c.taps.base = self._constant(offsets)
        for a in range(3):
            c.x.stride[2 + a] = strides[1 + a] * phase.x_step[a]
