"""From a program to the plan of one batch: forward and relevance steps, and their memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .again import Values, make_again
from .attention import fuse_attention
from .columns import joined
from .frames import together
from .fuse import fuse_pairs, fuse_products, join_channels
from .lowering import Lowering
from .memory import lay_out, place
from .plan import Plan
from .program import Program
from .sliced import place_locals
from .steps import Buffer, Step, View
from .tensors import Tensor
from .units import Unit


def forward(lowering: Lowering, program: Program) -> list[Step]:
    """The steps of values, and what the relevance needs of them."""
    network = program.network
    lowering.makers = {unit.out.index: unit for unit in network.units}
    external = lowering.external("x", network.input.shape)
    if program.tokens:
        external.dtype = "i8"
    lowering.values[network.input.index] = external
    for given in program.supplied:
        lowering.values[given.out.index] = beside = lowering.external(given.external, given.out.shape)
        if given.integer:
            beside.dtype = "i8"
    for number, unit in enumerate(network.units):
        if number and number == program.wide:
            narrow(lowering, program)
        lowering.unit = unit
        if unit.twin and (unit.out.valueless or not unit.in_relevance):
            unit.forward_twin(lowering)
        else:
            unit.forward(lowering)
        if program.halved and number < program.wide:
            halve_gates(lowering, unit, program.real)
    if program.wide == len(network.units) > 0:
        narrow(lowering, program)
    lowering.unit = None
    result = lowering.external("outputs", network.output.shape)
    lowering.emit(Step("MOVE", None, View(result), View(lowering.value(network.output))))
    return lowering.taken()


def narrow(lowering: Lowering, program: Program) -> None:
    """Float32 from here on: what is read of what was computed in float64 is rounded."""
    lowering.unit, lowering.real, lowering.gates = None, program.real, program.real
    read = {source.index for unit in program.network.units[program.wide :] for source in unit.sources}
    if program.wide == len(program.network.units):
        read.add(program.network.output.index)
    for tensor in program.network.tensors:
        value = lowering.values.get(tensor.index)
        if tensor.index in read and value is not None and value.root.dtype == "f8":
            lowering.wide[tensor.index] = value
            lowering.values[tensor.index] = lowering.converted(value, tensor, "x")


def halve_gates(lowering: Lowering, unit: Unit, real: str) -> None:
    """What relevance in float32 meets at a unit, rounded as soon as it is there."""
    factors = lowering.factors.get(unit.out.index, [])
    for number, (factor, kind) in enumerate(factors):
        if kind != "open":  # which is the value itself, and not read
            stem = "g" if kind == "gate" else "d"
            factors[number] = lowering.converted(factor, unit.out, stem, real), kind


def halve_values(lowering: Lowering, program: Program) -> None:
    """Values that relevance in float32 may read, rounded where they are wider; what it does not read takes no step in
    the end.
    """

    def rounded(value: Buffer, tensor: Tensor, stem: str) -> Buffer:
        return lowering.converted(value, tensor, stem) if value.root.dtype == "f8" else value

    for tensor in program.network.tensors:
        value = lowering.values.get(tensor.index)
        if value is not None:
            lowering.values[tensor.index] = rounded(value, tensor, "x")
        kept = lowering.kept.get(tensor.index)
        if kept is not None:
            kept.terms = [rounded(each, tensor, "n") for each in kept.terms]
            kept.y = None if kept.y is None else rounded(kept.y, tensor, "y")
            kept.sizes = None if kept.sizes is None else rounded(kept.sizes, tensor, "a")


def relevance(lowering: Lowering, program: Program) -> list[Step]:
    """The steps of relevance on its way down, in the form that each tensor takes (resolve.py)."""
    network, leaves = program.network, program.leaves
    lowering.real = lowering.gates
    if program.halved:
        halve_values(lowering, program)
    output = network.output
    start = lowering.external("start", output.shape, "nt")
    lowering.relevances[output.index] = start
    if len(output.shape) > 1:
        moved = lowering.buffer(f"r{lowering.label(output)}", output.shape, "nt")
        lowering.emit(Step("MOVE", None, View(moved), View(start)))
        lowering.relevances[output.index] = moved
    for number, unit in reversed([*enumerate(network.units)]):
        if number == program.wide - 1 and not program.halved:
            widen(lowering, program)
        if unit.out is leaves or not unit.in_relevance or unit.out.index not in lowering.relevances:
            continue
        lowering.unit, r = unit, lowering.relevances[unit.out.index]
        if lowering.book is None:
            unit.relevance(lowering, r)
            if lowering.weighing is not None:
                unit.weigh(lowering, r)
        else:  # between the steps that sum for a ledger
            line = lowering.book.open(unit, r)
            unit.relevance(lowering, r)
            lowering.book.close(line, r)
    lowering.unit = None
    if lowering.book is not None:
        for unit in network.units:  # constants take no steps
            if unit.absorbs and unit.out is not leaves and unit.out.index in lowering.relevances:
                lowering.book.open(unit, lowering.relevances[unit.out.index])
    finish(lowering, program)
    return lowering.taken()


def widen(lowering: Lowering, program: Program) -> None:
    """Float64 from here on: relevance so far is taken over, and values are those before they were rounded."""
    lowering.unit, lowering.real, lowering.gates = None, program.low, program.low
    lowering.values.update(lowering.wide)
    lowering.sizes.clear()
    lowering.lengths.clear()
    for tensor in program.network.tensors:
        if tensor.index in lowering.wide and tensor.index in lowering.relevances:
            stem = "r" if tensor.form == "R" else "c"
            lowering.relevances[tensor.index] = lowering.converted(lowering.relevances[tensor.index], tensor, stem)


def finish(lowering: Lowering, program: Program) -> None:
    """Relevance R (a gradient: c) of the tensor that is wanted, into the caller's array."""
    leaves, lowering.real = program.leaves, program.result
    found = lowering.relevances[leaves.index]
    if leaves.form == "c" and not program.gradient:
        product, m = lowering.wanted(leaves, "R"), View(lowering.value(leaves))
        lowering.emit(Step("MULTIPLY", None, View(product), View(found), m=m, multiplier="times", repeat=lowering.t))
        found = product
    if found.external != "result":
        result = lowering.external("result", leaves.shape, "nt")
        lowering.emit(Step("MOVE", None, View(result), View(found)))


def read_between(lowering: Lowering, program: Program) -> set[int]:
    """Ids of what executors read between the way through the network and the way back."""
    checked = () if program.checked is None else lowering.factors[program.checked.out.index]
    return {id(factor.root) for factor, _ in checked}


def lower(
    program: Program,
    n: int,
    t: int,
    *,
    ledger: bool = False,
    weights: Collection[int] = (),
    chunked: bool = False,
    reals: tuple[str, str] | None = None,
    local: bool = True,
    pairs: bool = False,
    early: bool = False,
    columns: int = 0,
    most: int | None = None,
    threads: int = 0,
) -> Plan:
    """The plan for n samples with t targets each.

    Parameters
    ----------
    ledger : sum what the ledger reads, beside the steps that there are without one
    weights : sum what the relevance of these entries' weights needs, likewise; not together with a ledger
    chunked : the relevance steps run several times on one forward pass, so what they read of it stays
    reals : how values, and how gates and relevance are kept, where that is not the type of the program's numbers
    local : the executor runs fused steps slice by slice, each thread with memory of its own for what is between them
    pairs : the device takes the terms of x⁺ and of x⁻ in the step of y
    early : borders are cleared together, as early as an arena that is hardly larger allows; not with `most`
    columns : the phases of an image's relevance are columns of one product, where they fill rows of so many bytes;
        0: never
    most : bytes of memory, with that of so many `threads`; where a plan would take more, values are made again on the
        way back instead of being kept
    """
    lowering = Lowering(
        program.real,
        reals or (program.low, program.low),
        program.network.output,
        program.leaves,
        relevant=program.relevant,
        gradient=program.gradient,
        ledger=ledger,
        weights=weights,
        t=t,
    )
    steps = forward(lowering, program)
    downward = relevance(lowering, program) if program.relevant else []
    if lowering.book is not None:
        downward = lowering.book.merged(downward)
    steps = fuse_pairs(steps) if pairs else steps
    steps, downward = join_channels(steps, fuse_products(downward, lowering.book))
    steps, downward, notes = fuse_attention(steps, downward, t, local=local)
    constant = [step for step in steps if step.out.buffer.batch == "1" and step.constant]
    if constant:
        steps = [*constant, *(step for step in steps if not step.constant)]
    slices = place_locals((*steps, *downward), t)
    laid, again = lay_out(steps, downward, n, t, chunked=chunked), ""
    if most is not None and downward and laid.arena > most - threads * slices:
        values = Values(steps, downward, (n, t), read_between(lowering, program))
        laid, again = make_again(
            values, lambda below: lay_out(steps, below, n, t, chunked=chunked), most - threads * slices
        )
    if early and most is None:
        laid = together(laid, n, t)
    steps, downward = laid.forward, laid.relevance
    count_macs((*steps, *downward), n, t)
    downward = joined(downward, columns) if columns else downward
    return Plan(
        program,
        n,
        t,
        laid.n_constant,
        steps,
        downward,
        laid.buffers,
        laid.arena,
        lowering.values,
        lowering.relevances,
        lowering.factors,
        lowering.book,
        lowering.weighing,
        slices,
        notes,
        again,
    )


def count_macs(steps: Sequence[Step], n: int, t: int) -> None:
    """Multiply-adds of n samples with t targets each, where those of one are counted."""
    counts = {"n": n, "nt": n * t, "1": 1}
    for step in (part for whole in steps for part in whole.parts()) if n * t > 1 else ():
        if step.macs:
            step.macs *= counts[step.domain.buffer.batch]


def spread(plan: Plan, n: int) -> Plan:
    """A plan for one sample, in which nothing was made again or joined in columns, becomes that for n."""
    if n > 1:
        plan.n, plan.arena = n, place(plan.buffers, n, plan.t, reuse=True)
        count_macs((*plan.forward, *plan.relevance), n, 1)
    return plan
