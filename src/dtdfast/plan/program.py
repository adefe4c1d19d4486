"""One network prepared for one input shape: checked, folded, resolved; what every executor starts from."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from .. import layers as L
from ..errors import DomainError, LayerError, RuleError, at
from ..locks import cached_property
from ..presets import RuleBook
from ..rules import Convention
from .domain import Domain, narrow
from .join import join
from .narrow import PICKS, narrowed
from .network import Network, build
from .resolve import resolve
from .shapes import Shape
from .tensors import Tensor
from .units import Affine, Copy, Elementwise, Move, Neuron, Reshaping, Supplied, Unit, Winner
from .units.neuron import ABOVE, SIGNED_BIAS
from .wiring import Reads, sources, wire

PREDICT, EXPLAIN, GRADIENT = "predict", "explain", "gradient"


@contextmanager
def planning() -> Iterator[None]:
    """While a plan is made. It is many objects, all of them to stay: Python's collector of cycles, which would go
    through them again and again, stands still. Products of weights that are too small for their type are 0, whatever
    numpy.seterr says.
    """
    with ExitStack() as stack:
        if gc.isenabled():  # else the caller does without it, or another thread plans and starts it again
            me = object()
            for end in (partial(_stopped.discard, me), gc.enable):  # no line of ours runs on the way out
                stack.callback(end)
            _stopped.add(me)
            gc.disable()
        with np.errstate(under="ignore"):
            yield


_stopped: set[object] = set()
"""Plans being made that have stopped the collector."""


def _start_in_child() -> None:
    """A forked child has none of the other threads."""
    if _stopped:
        gc.enable()
    _stopped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_in_child)


@dataclass(eq=False)
class Program:
    """A resolved network and what is wanted of it."""

    network: Network
    kind: str  # PREDICT, EXPLAIN or GRADIENT
    input_shape: Shape
    tokens: bool
    leaves: Tensor  # where relevance leaves
    pruned: tuple[int, ...]  # entries that play no part
    real: str = "f4"  # the type of its numbers
    wide: int = 0  # so many units, from the input on, compute in float64 where the others do not
    # relevance stays float32 there too: what it reads is computed in float64 and rounded
    halved: bool = False
    because: str = ""  # why not all is float32
    needs: bool = False  # as a convention's rules do
    checked: Neuron | None = None  # whose denominators decide, sample by sample, whether float32 will do

    def __repr__(self) -> str:
        return f"Program({self.kind!r}, {self.network!r}, {np.dtype(self.low)})"

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the arrays that folding and rules made for it: those that are not a record's own."""
        made = {}
        for unit in self.network.units:
            for part in unit.parts if isinstance(unit, Neuron) else ():
                for array in (part.weight, part.window, *(part.box or ()), *(part.rounded or ())):
                    if array is not None:
                        root = array.base if isinstance(array.base, np.ndarray) else array
                        made[id(root)] = 0 if not array.flags.writeable else array.nbytes
        return sum(made.values())

    @cached_property
    def supplied(self) -> list[Supplied]:
        """The units of what samples bring along beside x."""
        return [unit for unit in self.network.units if isinstance(unit, Supplied)]

    @property
    def low(self) -> str:
        """The type of the numbers at the input."""
        return "f8" if self.wide else self.real

    @cached_property
    def result(self) -> str:
        """The type of relevance where it leaves, which may be above what computes in float64."""
        if not self.wide:
            return self.real
        above = self.halved or any(unit.out is self.leaves for unit in self.network.units[self.wide :])
        return self.real if above else self.low

    @property
    def relevant(self) -> bool:
        return self.kind != PREDICT

    @property
    def gradient(self) -> bool:
        return self.kind == GRADIENT


def refuse_cancelling(program: Program, precision: str) -> None:
    """RuleError where a rule's sums may cancel, so that operands rounded to `precision` would leave nothing right of
    them.
    """
    for unit in program.network.units:
        if isinstance(unit, Neuron) and unit.cancels and unit.in_relevance and unit.row is not None:
            raise RuleError(
                f"layer {unit.entries[-1]}: the rule {unit.row.label} sums terms of both signs, which cancel; with "
                f"operands in {precision} "
                "its relevance may be mostly rounding: use precision='float32', or a rule such as ZPlus"
            )


def last_entry(layers: Sequence[L.Layer], start: int | None, kind: str) -> int:
    """The entry whose output is predicted or explained; explaining starts before a final Softmax."""
    if start is not None:
        return start
    last = len(layers) - 1
    if kind != PREDICT and isinstance(layers[last], (L.Softmax, L.Dropout)):
        reads = sources(layers)
        while isinstance(layers[last], (L.Softmax, L.Dropout)) and reads[last][0] != L.INPUT:
            last = reads[last][0]
    return last


@dataclass(eq=False)
class Outputs:
    """What is explained.

    Attributes
    ----------
    shape : of one sample
    narrows : a plan for one place of its first axis spares work
    planned : the places that have one
    """

    shape: Shape
    narrows: bool
    planned: set[int] = field(default_factory=set)


def outputs(
    layers: list[L.Layer],
    input_shape: Shape,
    tokens: bool,
    kind: str,
    start: int | None,
    stop: int | None,
    book: RuleBook,
    reads: list[Reads],
) -> Outputs:
    last = last_entry(layers, start, kind)
    entries = wire(layers, input_shape, tokens=tokens, last=last, reads=reads)
    shape = entries[last].shape
    if len(shape) != 2 or shape[0] == 1:
        return Outputs(shape, False)
    return Outputs(shape, last in narrowed(entries, input_shape, last, stop, 0, book, rows=False).axes)


def words_of(layers: Sequence[L.Layer], reads: Sequence[Sequence[int]], last: int) -> tuple[int, int] | None:
    """Position and number of words of an Embedding that reads the input, if there is one."""
    for position, record in enumerate(layers[: last + 1]):
        if isinstance(record, L.Embedding) and L.INPUT in reads[position]:
            return position, np.shape(record.weight)[0]
    return None


def prepare(
    layers: list[L.Layer],
    input_shape: Shape,
    tokens: bool,
    kind: str,
    start: int | None,
    stop: int | None,
    book: RuleBook,
    domain: Domain,
    precision: str = "",
    token: int | None = None,
    whole: bool = False,
    reads: list[Reads] | None = None,
) -> Program:
    """Check, fold, fuse and resolve; raises a DtdError before any work where something does not fit.

    Parameters
    ----------
    precision : "float32", "float64" or "single", as asked of an executor that has them; "" for float32 whatever the
        rules
    token : the one place of the output's first axis that is explained; None for all
    whole : nothing is narrowed to places that are read alone
    reads : as in wire
    """
    last = last_entry(layers, start, kind)
    entries = wire(layers, input_shape, tokens=tokens, last=last, reads=reads)
    stop = stop if kind != PREDICT else None
    if stop is not None and stop not in entries:
        raise LayerError(f"stop={stop}: {at(stop, layers[stop])} plays no part in what is explained (entry {last})")
    if kind == EXPLAIN and start is None and (unread := (book.listed or {}).keys() - entries.keys()):
        position = min(unread)
        raise RuleError(
            f"rules: {at(position, layers[position])} plays no part in what is explained (entry {last}), so a rule of "
            "it changes nothing; leave it out"
        )
    narrow = None
    if not whole and (token is not None or not {type(entry.record) for entry in entries.values()}.isdisjoint(PICKS)):
        rows = token is None or (book.holds and kind == EXPLAIN)
        narrow = narrowed(entries, input_shape, last, stop, token, book, rows=rows)
    entries = entries if narrow is None else narrow.entries
    network = build(entries, input_shape, last, stop, book, domain, narrow)
    leaves = network.input if stop is None else network.at[stop]
    if kind == EXPLAIN:
        join(network, leaves, entries)
    if kind != PREDICT:
        resolve(network, layers, stop, gradient=kind == GRADIENT)
    pruned = tuple(p for p in range(len(layers)) if p not in entries)
    program = Program(network, kind, input_shape, tokens, leaves, pruned)
    if precision == "float64":
        program.real, program.because = "f8", "as asked for"
    elif precision in ("float32", "single"):
        _exact_preparation(program)
        _choose_beyond(program)
        if precision == "float32" and kind == EXPLAIN and book.convention.needs_float64:
            _choose_float64(program, book.convention)
    else:
        _refuse_beyond(program, layers, precision or "float32")
    return program


def _exact_preparation(program: Program) -> None:
    """Float64 up to the last Preparation: x − mean in float32 would leave little of a column that is far from 0 for its
    spread.
    """
    prepared = [
        number for number, unit in enumerate(program.network.units) if isinstance(unit, Affine) and unit.prepares
    ]
    if prepared and prepared[-1] + 1 < len(program.network.units):
        program.wide, program.because = prepared[-1] + 1, "as the input is prepared in float64"


NARROW = "an affine makes the input's box narrow for the size of its bounds"


def _beyond(program: Program) -> dict[int, tuple[int, str]]:
    """Numbers of the units that share by what float32 leaves nothing of: an entry of each, and why."""
    found = {}
    for number, unit in enumerate(program.network.units):
        if not isinstance(unit, Neuron) or not unit.in_relevance:
            continue
        if any(part.box is not None and narrow(part.box).any() for part in unit.parts):
            found[number] = unit.parts[-1].position, NARROW
        elif why := unit.squares:
            found[number] = unit.parts[-1].position, why
    return found


def _choose_beyond(program: Program) -> None:
    """Float64 up to the last of them."""
    if found := _beyond(program):
        _up_to(program, last := max(found))
        program.because = "because at entry {}, {}".format(*found[last])


def _refuse_beyond(program: Program, layers: list[L.Layer], precision: str) -> None:
    """An error; where squares vanish, a warning: a filter that has died is no part of the network to speak of."""
    for position, why in _beyond(program).values():
        told = (
            f"{at(position, layers[position])}: {why}, so that {precision} is not enough: backend='cpu' with "
            "precision='float32' takes float64 there"
        )
        if why == NARROW:
            raise DomainError(told)
        if why == ABOVE:
            raise RuleError(told)
        warnings.warn(f"{told}; here relevance is lost, which a ledger calls a zero denominator", stacklevel=2)


def _up_to(program: Program, number: int) -> None:
    """Float64 up to this unit."""
    if number == len(program.network.units) - 1:
        program.real, program.wide = "f8", 0  # all of it
    elif program.real == "f4":
        program.wide = max(number + 1, program.wide)


def _choose_float64(program: Program, convention: Convention) -> None:
    """Float64 up to the last unit whose denominators may vanish, float32 above it; for values alone where relevance
    in float32 is as good (`_relative`).

    A denominator whose terms are of one sign is as exact as they are. Where it may cancel, its rounding errors, and
    those of all that it is computed from, are divided by whatever is left. Under most conventions that has a bound that
    counts, by a stabiliser or by the sign of the neuron that a ReLU lets through; captum's x·w⁺ and x(w + γw⁺) with x
    of any sign, held by 1e-9, have none in float32. What lies above such a unit only multiplies the relevance that it
    shares out: float32's relative errors stay what they are.

    At the network's outputs nothing is cut off, but relevance enters at a few of them: these are checked instead.
    """
    units, output = program.network.units, program.network.output
    if not units:  # nothing is computed, and nothing divided
        return
    reasons = {
        number: reason
        for number, unit in enumerate(units)
        if isinstance(unit, Neuron) and (reason := unit.cancellation())
    }
    last = units[-1]
    explained = isinstance(last, Neuron) and last.row is not None and len(last.row.shares) == 1
    if reasons.get(len(units) - 1) == SIGNED_BIAS and explained and last.out is output and len(output.shape) == 1:
        assert isinstance(last, Neuron)
        del reasons[len(units) - 1]
        program.checked = last
    if not reasons:
        return
    number = max(reasons)
    unit = units[number]
    assert isinstance(unit, Neuron)
    assert unit.row is not None
    program.halved = program.real == "f4" and all(_relative(u, output) for u in units[: max(number + 1, program.wide)])
    if program.halved:
        program.wide = max(number + 1, program.wide)
    else:
        _up_to(program, number)
    program.needs, entries = True, "+".join(map(str, unit.entries))
    sums = f"sums that {convention.name}'s rules divide by may cancel"
    program.because = f"because {sums} (last in {entries}, {unit.row.label}: {reasons[number]})"


def _relative(unit: Unit, output: Tensor) -> bool:
    """Whether relevance in float32 is off by the rounding of its own messages alone, once what it reads is computed in
    float64.

    In the form c, with R = x ⊙ c, a neuron hands on Σ_j w_ij g_j c_j. Its gates g = x/d, rounded from float64, have
    float32's relative error, and the winners of pools none, so every message has a relative error too. Values in
    float32 have no such bound: where rounding gives y the other sign, or a pool another winner, whole messages appear
    or vanish. Where a neuron divides R itself, R's errors would be divided too; at the network's output it has none.
    """
    if not unit.in_relevance:
        return True
    if isinstance(unit, Neuron):
        return not any(part.held for part in unit.parts) and (unit.out.form == "c" or unit.out is output)
    return isinstance(unit, (Copy, Move, Reshaping, Winner)) or (isinstance(unit, Elementwise) and unit.out.form == "c")
