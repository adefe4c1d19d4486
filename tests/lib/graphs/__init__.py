"""Random valid networks: a hypothesis strategy over every record, wired into directed acyclic graphs.

Hypothesis draws what shrinks well (which blocks, what each reads); a seeded generator draws the sizes and the numbers.
A block reads one entry `p` and appends one or more records.  Shapes are worked out here, not by the package.

`ties` follows equal values that are built in: 0 none, 1 copies (which tie exactly in any arithmetic), 2 sums over
copies, equal up to rounding only.  In the last the winner of a MaxPool hangs on an executor's last bit, so no MaxPool
reads them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from hypothesis import strategies as st

import dtdfast as dtd
from dtdfast.plan.shapes import axis_of
from dtdfast.presets import PRESETS
from dtdfast.rules import CONVENTIONS
from graphs.along import ALONG, reduce, scale
from graphs.blocks import FLAT, SPATIAL, add, relu, slices
from graphs.builder import Builder, bind
from graphs.tokens import attention, layer_norm
from rule_space import draw_rule, rule_classes

UNIT = 2.0**-24
MAX_ELEMENTS = 1500  # of one tensor of one sample
WEIGHTED = (dtd.Linear, dtd.Conv, dtd.ConvTranspose)
POOLED = (dtd.AvgPool, dtd.SumPool, dtd.GlobalAvgPool, dtd.Resample)
AGES = [0, 0, 0, 0, 0, 1, 2, 3]  # how far back a block reads
NORMS = (dtd.LayerNorm, dtd.RMSNorm, dtd.GroupNorm, dtd.InstanceNorm)
TAYLOR = ("lrp-0", "lrp-epsilon", "cp-lrp", "attnlrp", dtd.Zero, dtd.Epsilon, dtd.Gamma)  # rules that it takes
SHARING = [cls for cls in rule_classes() if cls is not dtd.Pass]


class Graph:
    """A network, per entry the shape of one sample, an input, relevance on the outputs, and the options rules and
    domain.
    """

    def __init__(self, layers, shapes, x, start, options):
        self.layers, self.shapes, self.x, self.start, self.options = layers, shapes, x, start, options

    def __repr__(self):
        """Short enough to read when hypothesis reports it."""
        entries = [f"{type(r).__name__}{shape}<-{r.inputs}" for r, shape in zip(self.layers, self.shapes, strict=True)]
        return f"Graph({self.x.shape} {' | '.join(entries)}, {self.options})"

    def explain(self, backend, **options):
        return dtd.explain(self.layers, self.x, self.start, backend=backend, **self.options, **options)


def perturbed(graph, rng):
    """The same network with every weight and input off by up to 4 roundings, relatively.

    A rounding error in a sum of products is a perturbation of its terms, so how far the relevance moves here is how far
    rounding can move it, whatever cancels on the way.
    """

    def shake(array):
        return np.asarray(array, np.float64) * (1 + 4 * UNIT * rng.uniform(-1, 1, np.shape(array)))

    layers = []
    for record in graph.layers:
        arrays = {
            f.name: shake(v)
            for f in dataclasses.fields(record)
            if isinstance(v := getattr(record, f.name), np.ndarray) and v.dtype != bool
        }
        layers.append(dataclasses.replace(record, **arrays))
    x = graph.x if graph.x.dtype.kind == "i" else shake(graph.x)
    if isinstance(graph.options["domain"], tuple):
        x = np.clip(x, *graph.options["domain"])
    return Graph(layers, graph.shapes, x, graph.start, graph.options)


def reads(layers, position):
    record = layers[position]
    return record.inputs if record.inputs is not None else (position - 1,) if record.arity else ()


def live(layers):
    """The entries that the last one needs."""
    needed = {len(layers) - 1}
    for position in reversed(range(len(layers))):
        if position in needed:
            needed.update(reads(layers, position))
    return sorted(needed - {dtd.INPUT})


def _input(draw, rng):
    """Input array, a Builder on it, and the domain."""
    n = draw(st.integers(1, 3))
    rank = draw(st.sampled_from([0, 1, 2, 2, 2, 3]))
    if rank == 1 and draw(st.booleans()):  # words
        length, features = (int(v) for v in rng.integers(2, 8, 2))
        words = rng.integers(0, 9, (n, length))
        b = Builder(rng, (length,), ties=1, words=True)
        p = b.put(
            bind(dtd.Embedding, rng.standard_normal((9, features)).astype(np.float32)),
            dtd.INPUT,
            (length, features),
            moves=True,
        )
        b.put(bind(dtd.Permute, (0, 2, 1)), p, (features, length), moves=True)
        return words, b, "real"
    shape = (int(rng.integers(1, 6)), *rng.integers(1, 8 if rank < 3 else 5, rank).tolist())
    x = rng.standard_normal((n, *shape)).astype(np.float32)
    domain = draw(st.sampled_from(["real", "nonnegative", (-2.5, 3.0)]))
    if domain == "nonnegative":
        x = abs(x)
    elif domain != "real":
        x = np.clip(x, *domain)
    b = Builder(rng, shape)
    if draw(st.integers(0, 5)) == 0:
        b.put(bind(dtd.Preparation, b.vector(shape[0]), b.bias(shape[0])), dtd.INPUT, shape)
    return x, b, domain


def options(rng, b, domain):
    """The default, a preset, one rule for all, or rules of all kinds on some of the layers that take one; a convention;
    and what becomes of attention.
    """
    attention = "taylor" if b.alike else [None, None, "held", "taylor"][int(rng.integers(4))]
    convention = str(rng.choice(list(CONVENTIONS)))
    if attention == "taylor" and b.weighs:
        rules = TAYLOR[int(rng.integers(len(TAYLOR)))]
        rules = rules if isinstance(rules, str) else draw_rule(rng, rules)
        return {"rules": rules, "domain": domain, "convention": "dtd", "attention": attention}
    choice = rng.random()
    if choice < 0.2:
        rules = "dtd"
    elif choice < 0.5:
        boxed = isinstance(domain, tuple)
        rules = str(
            rng.choice([name for name, preset in PRESETS.items() if boxed or not isinstance(preset.first, dtd.ZBox)])
        )
    elif choice < 0.6:
        rules = draw_rule(rng, rng.choice(SHARING))
        if getattr(rules, "fallback", False) and any(
            isinstance(record, (dtd.Scale, dtd.BatchNorm)) for record in b.layers
        ):
            rules = dataclasses.replace(
                rules, fallback=False
            )  # an affine joined with its layer refuses it: tests/test_affines.py
    else:
        rules = {
            p: rule
            for p in live(b.layers)
            if rng.random() < 0.5 and (rule := _rule_of(rng, b, p, b.layers[p], attention)) is not None
        }
    return {"rules": rules, "domain": domain, "convention": convention, "attention": attention}


def _rule_of(rng, b, p, record, attention):
    if isinstance(record, dtd.Add):
        return draw_rule(rng, rng.choice([dtd.Pass, *SHARING]))
    if p in b.attends:
        return draw_rule(rng, rng.choice(SHARING)) if attention != "taylor" else None
    if not isinstance(record, (*WEIGHTED, *POOLED, *NORMS)):
        return None
    source = p - 1 if record.inputs is None else record.inputs[0]
    before = b.layers[source] if source != dtd.INPUT else None
    # what may fold, or an Add's operands of several shapes: no box of the source's shape
    moved = isinstance(before, (dtd.Pad, dtd.Dropout))
    joined = isinstance(b.layers[min(p + 1, len(b.layers) - 1)], dtd.Add) and b.shape(p) != b.shape(source)
    shape = None if moved or joined else b.shape(source)
    axis = axis_of(record.axis, b.shape(source), "Linear") if isinstance(record, dtd.Linear) else 0
    return draw_rule(rng, rng.choice(SHARING), shape, axis)


@st.composite
def graphs(draw, max_blocks=10, taylor=True):
    """A valid network with its input, start relevance and options; `taylor`: with what only AttnLRP has a rule for."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, b, domain = _input(draw, rng)
    b.taylor = taylor and draw(st.integers(0, 3)) == 0
    p = len(b.layers) - 1
    count = draw(st.sampled_from(range(1, max_blocks + 1)))
    for number, age in draw(
        st.lists(st.tuples(st.integers(0, 99), st.sampled_from(AGES)), min_size=count, max_size=count)
    ):
        source = max(p - age, b.first)  # reading an older entry gives it several readers, or leaves a dead branch
        while source in b.inner or (source != dtd.INPUT and isinstance(b.layers[source], dtd.Constant)):
            source += 1  # nothing is to be learnt of constants alone
        blocks = FLAT if len(b.shape(source)) == 1 else SPATIAL
        if len(b.shape(source)) > 4 or math.prod(b.shape(source)) > MAX_ELEMENTS:
            blocks = (
                [slices, relu, reduce]
                if math.prod(b.shape(source)) > MAX_ELEMENTS
                else [slices, relu, add, scale, layer_norm, attention, *ALONG]
            )
        before = len(b.layers)
        blocks[number % len(blocks)](b, source)
        if len(b.layers) == before:
            relu(b, source)
        p = len(b.layers) - 1
    if len(b.shape(p)) == 1 and draw(st.booleans()):
        p = b.put(bind(dtd.Softmax), p, b.shape(p))
    sign = draw(st.sampled_from([abs, np.asarray]))
    start = sign(rng.standard_normal((len(x), *b.shape(p)))).astype(np.float32)
    return Graph(b.layers, b.shapes, x, start, options(rng, b, domain))
