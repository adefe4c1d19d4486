"""Steps that move no data of their own: copies into a concatenation become places in it, products move into the steps
before them.

Both passes rewrite a list of steps before memory is laid out, and only where nothing else can see the difference.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

from .account import Book
from .parts import FEW_OUTPUTS
from .steps import REALS, SUMMING, Buffer, Step, View
from .tensors import whole as whole_of

UNPOOLS = ("MAX_UNPOOL", "MAX_SCATTER")
MULTIPLIES = ("TAPS_DENSE", "TAPS_CHANNEL", "TAPS_LINEAR", "SCATTER_LINEAR", "MOVE", *UNPOOLS)
"""Operations whose result a product can join: `m`, for UNPOOLS (whose m are the winners) `factor`."""


PAIRED_INPUTS = 192
"""Inputs of which 14 pixels of x, x⁺ and x⁻ lie in 32 KiB, a first cache beside weights and sums."""


def _touched(steps: list[Step]) -> dict[int, list[int]]:
    """Memory (by id of its buffer) → numbers of the steps that use it."""
    touched: dict[int, list[int]] = defaultdict(list)
    for number, step in enumerate(steps):
        for root in step.roots():
            users = touched[id(root)]
            if not users or users[-1] != number:
                users.append(number)
    return touched


def _own(buffer: Buffer) -> bool:
    """Numbers in the arena, in memory of their own that may still be laid out otherwise."""
    return buffer.alias is None and not buffer.frozen and not buffer.external and buffer.dtype in REALS


def _channels(step: Step, part: View, whole: View) -> int | None:
    """The first channel of `part` within its buffer, where the step copies all of `whole` into or out of such a block
    of channels.
    """
    region = part.region
    if region is None or step.accumulate or region.order is not None or part.expand or whole.expand:
        return None
    start, stride, count = region.ranges[0]
    block = (count, *part.buffer.shape[1:])
    if stride != 1 or region.ranges[1:] != whole_of(block).ranges[1:] or block != whole.buffer.shape:
        return None
    if whole.region is not None and whole.region != whole_of(block):
        return None
    alike = part.buffer.batch == whole.buffer.batch and part.buffer.dtype == whole.buffer.dtype
    return start if alike else None


def _is_piece(step: Step) -> bool:
    return step.op == "MOVE" and step.x is not None and step.out.region is not None and not step.accumulate


def join_channels(forward: list[Step], relevance: list[Step]) -> tuple[list[Step], list[Step]]:
    """Copies into blocks of channels of a tensor, or out of them, left out: the smaller tensor lies in the larger one.

    A value that is copied in must be copied to this one place; a value that is copied out must be written by nothing
    else.
    """
    steps = [*forward, *relevance]
    copies = [
        (number, step.x, step.out, _channels(step, step.out, step.x), _channels(step, step.x, step.out))
        for number, step in enumerate(steps)
        if step.op == "MOVE" and step.x is not None and not (step.x.region is None and step.out.region is None)
    ]
    if not copies:
        return forward, relevance
    writers: dict[int, list[int]] = defaultdict(list)
    for number, step in enumerate(steps):
        writers[id(step.out.buffer.root)].append(number)
    joined = Counter(id(x.buffer) for _, x, out, _, _ in copies if out.region is not None)
    dropped = set()
    for number, x, out, inward, outward in copies:
        if not (_own(x.buffer) and _own(out.buffer)) or x.buffer.plain or out.buffer.plain or out.buffer is x.buffer:
            continue
        pieces = (steps[w] for w in writers[id(out.buffer)])
        if (
            inward is not None
            and joined[id(x.buffer)] == 1
            and max(writers[id(x.buffer)]) < number
            and all(map(_is_piece, pieces))
        ):
            x.buffer.alias, x.buffer.channel = out.buffer, inward
        elif outward is not None and writers[id(out.buffer)] == [number] and max(writers[id(x.buffer)]) < number:
            out.buffer.alias, out.buffer.channel = x.buffer, outward
        else:
            continue
        small, large = (x.buffer, out.buffer) if inward is not None else (out.buffer, x.buffer)
        large.widen(*small.frame())
        dropped.add(number)
    kept = [None if number in dropped else step for number, step in enumerate(steps)]
    first = len(forward)
    return [s for s in kept[:first] if s is not None], [s for s in kept[first:] if s is not None]


def without_unread(steps: list[Step], touched: dict[int, list[int]]) -> list[Step]:
    """Without the steps whose results nobody reads: what a Constant absorbs."""
    for number, step in enumerate(steps):
        root = buffer if (buffer := step.out.buffer).alias is None else buffer.root
        if touched[id(root)][-1] == number and not root.external:
            break
    else:
        return steps
    read: set[int] = set()
    kept = []
    for step in reversed(steps):
        root = step.out.buffer.root
        if root.external or id(root) in read:
            kept.append(step)
            for view in step.views():
                if view is not step.out:
                    read.add(id(view.buffer.root))
    return kept[::-1]


def fuse_products(steps: list[Step], book: Book | None) -> list[Step]:
    """out (+)= m ⊙ r taken into the steps that write r, where nothing else reads r; without what nobody reads.

    Where a ledger sums r, it is taken up to them: each writes memory of its own, which is summed and multiplied there.
    The sums are those of all of r, and the products have the same bits.
    """
    touched = _touched(steps)
    kept = without_unread(steps, touched)
    if kept is not steps:
        steps, touched = kept, _touched(kept)
    dropped: set[int] = set()
    behind: dict[int, list[Step]] = {}  # steps that follow others
    for number, step in enumerate(steps):
        if step.op != "MULTIPLY" or step.multiplier != "times" or step.coefficient != 1.0:
            continue
        x, m, out = step.x, step.m, step.out
        if x is None or m is None or not (x.whole and m.whole and out.whole) or not _own(x.buffer):
            continue
        r, into, by = x.buffer, out.buffer, m.buffer
        into, by = into if into.alias is None else into.root, by if by.alias is None else by.root
        *before, last = touched[id(r)]
        sums = [] if book is None else [i for i in before if steps[i].op in SUMMING]
        writers = [i for i in before if i not in sums] if sums else before
        if last != number or not writers or r is into:
            continue
        if not all(_takes_product(steps[w], r) for w in writers):
            continue
        of_out, of_m = touched[id(into)], touched[id(by)]
        if of_out[0] < number and not set(writers).issuperset(_between(of_out, writers[0], number)):
            continue
        users = _between(of_m, writers[0], number) if of_m[0] < number else ()
        if users and any(steps[i].out.buffer.root is by for i in users):
            continue  # m is not there yet
        for group in _groups(steps, writers) if sums else ():
            assert book is not None
            behind[group[-1]] = _taken_up(steps, group, [steps[i] for i in sums if i > group[-1]], step, book)
        for w in writers if not sums else ():
            _take_product(steps[w], step)
        for users in (of_out,) if of_out is of_m else (of_out, of_m):
            del users[bisect_left(users, number)]
            for w in writers:
                place = bisect_left(users, w)
                if place == len(users) or users[place] != w:
                    users.insert(place, w)
        dropped.update((number, *sums))
    if not behind:
        return [step for k, step in enumerate(steps) if k not in dropped]
    return [s for k, step in enumerate(steps) if k not in dropped for s in (step, *behind.get(k, []))]


def _between(users: list[int], first: int, last: int) -> list[int]:
    """Those from the first on and before the last."""
    return users[bisect_left(users, first) : bisect_left(users, last)]


def fuse_pairs(steps: list[Step]) -> list[Step]:
    """Y, the terms of x⁺ and of x⁻, and their factor in one step, where they are one pointwise product.

    Apart, y and the sum of the terms go to memory and come back: twenty bytes for each of its elements, which few
    inputs do not outweigh.
    """
    touched: dict[int, list[int]] = {}  # once there is a candidate
    sums: dict[int, int] = {}  # unit, by its id → number of the step of its y, where that is one alone
    fused: dict[int, Step] = {}
    dropped: set[int] = set()
    for number, step in enumerate(steps):
        if step.op == "NEURON_DENSE":
            sums[id(step.unit)] = -1 if id(step.unit) in sums else number
        if step.op != "FACTOR" or step.terms is None or sums.get(id(step.unit), -1) < 0:
            continue
        of_y, terms = sums[id(step.unit)], step.terms.buffer
        y = steps[of_y]
        pair = [i for i in range(of_y + 1, number) if steps[i].out.buffer is terms]
        if not _is_pair(y, [steps[i] for i in pair], step):
            continue
        touched = touched or _touched(steps)
        if touched[id(terms.root)] != [*pair, number] or _between(touched[id(y.out.buffer.root)], of_y + 1, number):
            continue
        added = {key: getattr(step, key) for key in ("factor", "factor_kind", "coefficient", "stabilizer", "bias_d")}
        plus, minus = (steps[i].x for i in pair)
        fused[number] = y.but(**added, other=plus, shift=minus, macs=y.macs + sum(steps[i].macs for i in pair))
        dropped.update((of_y, *pair))
        del sums[id(step.unit)]
    if not fused:
        return steps
    return [fused.get(k, step) for k, step in enumerate(steps) if k not in dropped]


def _is_pair(y: Step, pair: list[Step], factor: Step) -> bool:
    """Whether these are Σ x w, Σ x⁺ w⁺ + Σ x⁻ w⁻ and a factor of their epilogue."""
    bias_d, weights = factor.bias_d, y.weights
    apart = not y.dual and all(view is None for view in (y.factor, y.terms, y.y_prev, y.scale, y.window))
    usual = (
        factor.factor_kind in ("gate", "denominator")
        and factor.select == "all"
        and factor.coefficient > 0  # of others a ledger reads the terms
        and factor.window is None
        and factor.terms_prev is None
        and (bias_d is None or bias_d.ndim == 1)
    )
    if not (apart and usual) or weights is None or y.phase is None or len(y.phase.taps) != 1 or y.groups != 1:
        return False
    if y.phase.x_step != (1, 1, 1) or y.x is None or y.x.buffer.shape[0] > PAIRED_INPUTS:
        return False
    if y.out.buffer.shape[0] <= FEW_OUTPUTS or factor.out.buffer.root.dtype != y.out.buffer.root.dtype:
        return False
    return [(s.op, s.weight_map, s.accumulate) for s in pair] == [
        ("TAPS_DENSE", "w+", False),
        ("TAPS_DENSE", "w-", True),
    ] and all(
        s.weights is not None
        and s.weights.key == weights.key
        and s.multiplier == "none"
        and s.window is None
        and s.x is not None
        and s.x.buffer.batch == y.x.buffer.batch
        and s.x.region is None
        for s in pair
    )


def _takes_product(step: Step, r: Buffer) -> bool:
    """Whether the step writes r, reads it at most to accumulate, and has no multiplier yet."""
    if step.op not in MULTIPLIES or step.out.buffer is not r or (step.x is not None and step.x.buffer.root is r):
        return False
    if step.op == "MOVE":
        return step.x is not None and step.x.region is None and step.out.region is None
    return step.factor is None if step.op in UNPOOLS else step.multiplier == "none"


def _groups(steps: list[Step], writers: list[int]) -> list[list[int]]:
    """Writers one by one, but the phases of a product, which share all elements out among them, together."""
    groups: list[list[int]] = []
    for w in writers:
        group = [steps[other] for other in groups[-1]] if groups else []
        fresh = all(step.out.region != steps[w].out.region for step in group)
        if group and fresh and _product_of(group[-1]) == _product_of(steps[w]) is not None:
            groups[-1].append(w)
        else:
            groups.append([w])
    return groups


def _product_of(step: Step) -> tuple[object, ...] | None:
    """What the phases of one product have in common; None where a step is no phase."""
    if step.out.region is None:
        return None
    part = None if step.weights is None else id(step.weights.part)
    return id(step.unit), step.op, step.accumulate, part, tuple(by for _, by, _ in step.out.region.ranges)


def _taken_up(steps: list[Step], group: list[int], sums: list[Step], product: Step, book: Book) -> list[Step]:
    """Steps behind a group of writers, which gets memory of its own: sums of that, then the product."""
    first = steps[group[0]]
    r = first.out.buffer
    own = Buffer(r.name, r.shape, r.batch, r.dtype, r.plain)
    for w in group:
        out = steps[w].out
        steps[w] = steps[w].but(out=View(own, out.region, out.expand, out.trailing), accumulate=False)
    more: dict[str | int, Step] = {}
    for found in sums:
        key = found.op if found.op == "SUMS" else id(found)  # SUMS are alike: of what was written until then
        if key not in more:
            more[key] = found.but(x=View(own))
            book.place(more[key])
        book.divide(found, more[key])
    accumulate = first.accumulate or product.accumulate
    return [*more.values(), product.but(x=View(own), accumulate=accumulate)]


def _take_product(step: Step, product: Step) -> None:
    out, m = product.out, product.m
    assert m is not None
    if not step.out.whole:
        out = View(out.buffer, step.out.region, step.out.expand, step.out.trailing)
        m = View(m.buffer, step.out.region)
    step.out, step.repeat, step.accumulate = out, product.repeat, step.accumulate or product.accumulate
    if step.op in UNPOOLS:
        step.factor = m
    else:
        step.m, step.multiplier = m, "times"
    if step.op == "MOVE":
        step.op = "MULTIPLY"
