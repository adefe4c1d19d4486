"""Random networks: the two executors agree, the ledger closes, and a broken network is refused."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dtdfast as dtd
from dtdfast.layers import RECORDS
from dtdfast.presets import ATTENTION, PRESETS
from dtdfast.rules import CONVENTIONS
from graphs import UNIT, Graph, graphs, live, options, perturbed, reads
from graphs.blocks import FLAT, SPATIAL
from graphs.builder import Builder
from rule_space import drawn, rule_classes


def test_every_option_of_every_rule_is_drawn():
    """By looking at rules.py: a rule, a field, a bias, a preset or a convention that the random networks never draw
    fails by name.
    """
    rng, seen = np.random.default_rng(0), set()
    eye = dtd.Linear(np.eye(2))
    entries = SimpleNamespace(
        layers=[eye, eye, dtd.Add(inputs=(0, 1))], shape=lambda p: (2,), alike=False, weighs=False, attends=[]
    )
    for _ in range(3000):
        found = options(rng, entries, (-1.0, 1.0))
        rules = found["rules"]
        seen |= {(key, found[key]) for key in ("convention", "attention")}
        seen |= {("preset", rules)} if isinstance(rules, str) else set()
        for rule in [] if isinstance(rules, str) else rules.values() if isinstance(rules, dict) else [rules]:
            seen |= set(drawn(rule))
    wanted = {("convention", name) for name in CONVENTIONS} | {("preset", name) for name in PRESETS}
    wanted |= {("attention", name) for name in (None, *ATTENTION)}
    for cls in rule_classes():
        wanted |= {(cls.__name__, "bias", bias) for bias in (None, *cls.biases)}
        for field in dataclasses.fields(cls):
            if field.name != "bias":
                values = {
                    value
                    for found in seen
                    if len(found) == 3 and found[:2] == (cls.__name__, field.name)
                    for value in found[2:]
                }
                assert len(values) > 1, f"{cls.__name__}.{field.name} is drawn as {values or 'nothing'} alone"
                wanted |= {
                    (cls.__name__, field.name, value) for value in (True, False) if isinstance(field.default, bool)
                }
    assert not wanted - seen, sorted(map(str, wanted - seen))


def test_every_record_is_drawn():
    """By looking at dtdfast.layers: a record, a mask or a share that no block puts into a network fails by name."""
    rng, optional, seen = np.random.default_rng(0), {"mask", "share", "transpose_a", "transpose_b"}, set()
    for shape, blocks in (((6,), FLAT), ((4, 5), SPATIAL), ((4, 3, 4), SPATIAL)):
        for block in {*blocks}:
            b = Builder(rng, shape)
            b.taylor = True
            for _ in range(20):
                block(b, dtd.INPUT)
            for record in b.layers:
                given = {f.name for f in dataclasses.fields(record) if getattr(record, f.name) is not f.default}
                seen |= {type(record), *(given & optional)}
    at_the_input = {dtd.Embedding, dtd.Preparation}
    beside_it = {dtd.Given}  # test_given.py
    assert seen | at_the_input | beside_it == {*RECORDS.values(), *optional}


@given(graphs(), st.integers(0, 2**32 - 1))
def test_cpu_and_oracle_agree(graph, seed):
    expected = graph.explain("oracle")
    rng = np.random.default_rng(seed)
    moved = max(abs(perturbed(graph, rng).explain("oracle") - expected).max() for _ in range(3))
    scale = abs(expected).max()
    assume(moved <= 1e-2 * scale)  # else float32 cannot know the answer
    r_in = graph.explain("cpu")
    assert np.isfinite(r_in).all()
    # 16 draws of the perturbation's size, and the roundings of sums of up to 2**10 terms whose condition is 1
    assert abs(r_in - expected).max() <= 16 * moved + 2**10 * UNIT * scale


@given(graphs())
def test_predictions_agree(graph):
    expected = dtd.predict(graph.layers, graph.x, backend="oracle")
    outputs = dtd.predict(graph.layers, graph.x, backend="cpu")
    assert outputs.shape == graph.start.shape
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4 * max(1, abs(expected).max()))


@given(graphs())
def test_predictions_are_those_of_the_single_layers(graph):
    """Folding, fusion and the reuse of memory change nothing: every record evaluated on its own, in order, gives the
    same outputs.
    """
    values = {dtd.INPUT: graph.x if graph.x.dtype.kind == "i" else graph.x.astype(np.float64)}
    for position, record in enumerate(graph.layers):
        operands = [values[p] for p in reads(graph.layers, position)]
        if len(operands) == 1:
            values[position] = dtd.predict([dataclasses.replace(record, inputs=None)], operands[0], backend="oracle")
        elif isinstance(record, dtd.Constant):
            values[position] = np.broadcast_to(record.value, (len(graph.x), *record.value.shape))
        elif isinstance(record, dtd.Concat):
            values[position] = np.concatenate(operands, record.axis)
        elif isinstance(record, dtd.MatMul):
            first, second = (
                o.swapaxes(-1, -2) if turn else o
                for o, turn in zip(operands, (record.transpose_a, record.transpose_b), strict=True)
            )
            values[position] = record.scale * (first @ second)
        else:
            rank = max(o.ndim for o in operands)
            full = [
                o.reshape(len(o), *[1] * (rank - o.ndim), *o.shape[1:]) for o in operands
            ]  # constants may have fewer axes
            values[position] = (np.prod if isinstance(record, dtd.Mul) else np.sum)(
                np.array(np.broadcast_arrays(*full)), axis=0
            )
    expected = values[len(graph.layers) - 1]
    outputs = dtd.predict(graph.layers, graph.x, backend="oracle")
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-9 * max(1, abs(expected).max()))


@given(graphs(), st.integers(0, 2**32 - 1))
def test_maps_compose(graph, seed):
    """From the output to an entry that everything passes through, and from there to the input: the whole way.

    Not from a pool that an affine may read as one neuron with what the pool reads, nor from an average one that goes by
    the sign of y without its ReLU.
    """
    scales = (dtd.BatchNorm, dtd.Scale, dtd.Constant)  # a Mul by a Constant is a Scale
    affine = any(isinstance(record, scales) for record in graph.layers)
    means = (dtd.AvgPool, dtd.SumPool, dtd.GlobalAvgPool) if isinstance(graph.options["rules"], str) else ()
    pools = () if affine else (dtd.MaxPool, *means)

    def cuts(position):
        """Whether every path from the output to the input goes through here, behind an activation or a pool."""
        stack, seen = [_last(graph.layers)], {position}
        while stack:
            p = stack.pop()
            if p == dtd.INPUT:
                return False
            if p not in seen:
                seen.add(p)
                stack.extend(reads(graph.layers, p))
        return isinstance(graph.layers[position], (dtd.ReLU, dtd.LRN, *pools))

    places = [p for p in live(graph.layers) if cuts(p)]
    assume(places)
    place = int(np.random.default_rng(seed).choice(places))
    inner = graph.explain("oracle", stop=place)
    rules = graph.options["rules"]
    needed = live(graph.layers[: place + 1])
    below = {p: r for p, r in rules.items() if p in needed} if isinstance(rules, dict) else rules
    clips = isinstance(rules, str) and PRESETS[rules].clip_start
    assume(not clips or inner.min() >= 0)  # a start that is not clipped on its way
    composed = dtd.explain(
        graph.layers[: place + 1], graph.x, inner, backend="oracle", **{**graph.options, "rules": below}
    )
    whole = graph.explain("oracle")
    assert abs(composed - whole).max() <= 1e-8 * (abs(whole).max() + abs(inner).max())


@given(graphs(), st.integers(0, 2**32 - 1))
def test_relevance_and_gradients_between_any_two_entries(graph, seed):
    """Behind a gate, in queries and keys, at a constant: the executors agree, refuse alike, and the ledger closes."""
    rng = np.random.default_rng(seed)
    start = int(rng.integers(len(graph.layers)))
    stop = None if start == 0 or rng.random() < 0.2 else int(rng.integers(start))
    try:
        outputs = dtd.predict(graph.layers[: start + 1], graph.x, backend="oracle")
    except dtd.DtdError:  # of constants alone
        assume(False)
    r_out = outputs * rng.standard_normal(outputs.shape)
    gradient = {"kind": "gradient"}
    for asked in (graph.options, gradient):
        exact, cpu = (
            {**asked, "start": start, "stop": stop, "backend": backend, "precision": "float64"}
            for backend in ("oracle", "cpu")
        )
        try:
            expected = dtd.Explainer(graph.layers, **exact).explain(graph.x, r_out)
        except dtd.DtdError as error:
            with pytest.raises(type(error), match=re.escape(str(error))):
                dtd.Explainer(graph.layers, **cpu).explain(graph.x, r_out)
            continue
        found, shaken = dtd.Explainer(graph.layers, **cpu).explain(graph.x, r_out), perturbed(graph, rng)
        moved = abs(dtd.Explainer(shaken.layers, **exact).explain(shaken.x, r_out) - expected).max()
        # terms that cancel to 1e-9 of their size; 2**10 draws of float64's rounding, 2**-31 of the perturbation's size
        assert abs(found - expected).max() <= 1e-7 * abs(expected).max() + 2.0**-21 * moved
        if asked is not gradient:
            assert (ledger := dtd.Explainer(graph.layers, **cpu).ledger(graph.x, r_out)).closed, str(ledger)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@given(graph=graphs())
def test_ledger_closes(backend, graph):
    ledger = dtd.Explainer(graph.layers, backend=backend, **graph.options).ledger(graph.x, graph.start)
    assert ledger.closed, str(ledger)


@given(graphs(max_blocks=6))
def test_bits_do_not_depend_on_the_batch(graph):
    together = graph.explain("cpu")
    for n in range(len(graph.x)):
        alone = Graph(graph.layers, graph.shapes, graph.x[n : n + 1], graph.start[n : n + 1], graph.options)
        np.testing.assert_array_equal(alone.explain("cpu", n_threads=1 + n), together[n : n + 1])


@given(graphs(), st.integers(0, 2**32 - 1))
def test_gradients_are_derivatives(graph, seed):
    """Along a random direction v: <gradient, v> = (f(x + h v) - f(x - h v)) / 2h, f the start's product with the
    outputs.
    """
    assume(graph.x.dtype.kind == "f" and not any(isinstance(record, dtd.LRN) for record in graph.layers))
    layers = graph.layers[:-1] if isinstance(graph.layers[-1], dtd.Softmax) else graph.layers
    assume(layers)
    x, start, h = graph.x.astype(np.float64), graph.start.astype(np.float64), 1e-6
    v = np.random.default_rng(seed).standard_normal(x.shape)

    def f(x):
        return (start * dtd.predict(layers, x, backend="oracle")).sum()

    gradient = dtd.baselines.gradient(layers, x, start, backend="oracle")
    middle, scale = f(x), abs(gradient).sum() + abs(start).sum()
    ahead, behind = (f(x + h * v) - middle) / h, (middle - f(x - h * v)) / h
    assume(abs(ahead - behind) <= 1e-4 * scale)  # else there is a kink of a ReLU or a tie of a pool between
    assert abs((gradient * v).sum() - (ahead + behind) / 2) <= 1e-3 * scale
    np.testing.assert_allclose(
        dtd.baselines.gradient(layers, graph.x, graph.start, backend="cpu"),
        gradient,
        rtol=0,
        atol=1e-3 * abs(gradient).max() + 1e-6 * abs(start).sum(),  # what cancels in float32 leaves its rounding
    )


# ------------------------------------------------------------------------------------------------------ broken networks


def _last(layers):
    return len(layers) - 1


def _nan(shape):
    array = np.zeros(shape, np.float32)
    array.flat[-1] = np.nan
    return array


def _rewire(to):
    """Let a live entry read position to(entry, length)."""

    def mutate(layers, shapes, rng):
        position = int(rng.choice(live(layers)))
        arity = len(layers[position].inputs or (0,))
        layers[position] = dataclasses.replace(layers[position], inputs=(to(position, len(layers)),) * arity)

    return mutate


def _append(make):
    """Append make(position and shape of the last entry)."""

    def mutate(layers, shapes, rng):
        layers.append(make(_last(layers), shapes[-1]))

    return mutate


def _widen_a_weight(layers, shapes, rng):
    """A live weight that expects one input channel more."""
    axis = {dtd.Linear: 1, dtd.Conv: 1, dtd.ConvTranspose: 0, dtd.BatchNorm: 0, dtd.Scale: 0}
    choices = [p for p in live(layers) if type(layers[p]) in axis and getattr(layers[p], "groups", 1) == 1]
    assume(choices)
    position = int(rng.choice(choices))
    record = layers[position]
    if isinstance(record, (dtd.BatchNorm, dtd.Scale)):
        n = shapes[position][0] + 1
        layers[position] = dtd.Scale(np.ones(n), inputs=record.inputs)
    else:
        weight = np.concatenate([record.weight, record.weight.take([0], axis[type(record)])], axis[type(record)])
        layers[position] = dataclasses.replace(record, weight=weight)


def _different_shapes(record):
    def mutate(layers, shapes, rng):
        a = len(shapes[-1])
        meets = {
            dtd.Concat: lambda u, v: sum(p != q for p, q in zip(u, v, strict=True)) < 2,
            dtd.Add: lambda u, v: all(1 in (p, q) or p == q for p, q in zip(u, v, strict=True)),
        }[record]
        others = [
            p
            for p, s in enumerate(shapes)
            if not isinstance(layers[p], dtd.Constant) and (len(s) != a or not meets(s, shapes[-1]))
        ]
        assume(others)
        layers.append(record(inputs=(_last(layers), int(rng.choice(others)))))

    return mutate


MUTATIONS = {
    "wrong channel count": _widen_a_weight,
    "forward reference": _rewire(lambda p, n: min(p + 1, n)),
    "self reference": _rewire(lambda p, n: p),
    "dangling reference": _rewire(lambda p, n: n + 5),
    "negative reference": _rewire(lambda p, n: -2),
    "wrong rank": _append(lambda p, s: dtd.Conv(np.ones((1, s[0], *[1] * (len(s) if len(s) < 4 else 1)), np.float32))),
    "linear on a wrong size": _append(lambda p, s: dtd.Linear(np.ones((2, s[-1] + 1)))),
    "NaN weight": _append(lambda p, s: dtd.Scale(_nan(s[0]))),
    "concat of the batch": _append(lambda p, s: dtd.Concat(0, inputs=(p, p))),
    "slice of the batch": _append(lambda p, s: dtd.Slice(0, 0, 1)),
    "axis beyond the rank": _append(lambda p, s: dtd.Slice(len(s) + 1)),
    "empty slice": _append(lambda p, s: dtd.Slice(1, s[0])),
    "mul without a gate": lambda layers, shapes, rng: layers.extend(
        [dtd.ReLU(), dtd.Activation("softplus"), dtd.Mul(inputs=(len(layers), len(layers) + 1))]
    ),
    "mul of two gates": lambda layers, shapes, rng: layers.extend(
        [dtd.Activation("sigmoid"), dtd.Activation("sigmoid"), dtd.Mul(inputs=(len(layers), len(layers) + 1))]
    ),
    "window too large": _append(lambda p, s: dtd.MaxPool(s[-1] + 1)),
    "kernel too large": _append(lambda p, s: dtd.Conv(np.ones((1, s[0], *(h + 1 for h in (s[1:] or s)))))),
    "pool on features": lambda layers, shapes, rng: layers.extend([dtd.Flatten(), dtd.AvgPool(1)]),
    "reshape to another size": _append(lambda p, s: dtd.Reshape((int(np.prod(s)) + 1,))),
    "permute of another rank": _append(lambda p, s: dtd.Permute(tuple(range(len(s) + 2)))),
    "add of different shapes": _different_shapes(dtd.Add),
    "concat of different shapes": _different_shapes(dtd.Concat),
    "matmul of different sizes": lambda layers, shapes, rng: layers.extend(
        [
            dtd.Reshape((1, -1)),
            dtd.Concat(2, inputs=(len(layers),) * 2),
            dtd.MatMul(inputs=(len(layers), len(layers) + 1)),
        ]
    ),
    "matmul of two alike": lambda layers, shapes, rng: layers.extend(
        [dtd.Reshape((1, -1)), dtd.MatMul(transpose_b=True, inputs=(len(layers),) * 2)]
    ),
    "weight of another norm": _append(lambda p, s: dtd.LayerNorm(-1, np.ones(s[-1] + 1))),
    "norm along the batch": _append(lambda p, s: dtd.RMSNorm(0)),
    "groups that do not divide": _append(lambda p, s: dtd.GroupNorm(s[0] + 1)),
    "mask of another shape": _append(lambda p, s: dtd.Softmax(-1, mask=np.ones(s[-1] + 1, bool))),
    "softmax inside": lambda layers, shapes, rng: layers.extend([dtd.Softmax(), dtd.ReLU()]),
    "embedding inside": _append(lambda p, s: dtd.Embedding(np.ones((3, 2)))),
    "not a record": _append(lambda p, s: "ReLU"),
}


@pytest.mark.parametrize("name", MUTATIONS)
@settings(max_examples=settings().max_examples // 4)  # of each mutation: hundreds of networks in all
@given(graph=graphs(max_blocks=5, taylor=False), seed=st.integers(0, 2**32 - 1))
def test_broken_networks_are_refused(name, graph, seed):
    layers, shapes = list(graph.layers), list(graph.shapes)
    if isinstance(layers[-1], dtd.Softmax):
        layers.pop(), shapes.pop()

    def attempt():
        MUTATIONS[name](layers, shapes, np.random.default_rng(seed))
        layers.append(dtd.Flatten())  # so that target 0 exists whatever comes out
        dtd.explain(layers, graph.x, 0, backend="cpu", domain=graph.options["domain"])

    with pytest.raises((dtd.LayerError, dtd.InputError)):  # not any DtdError: the target and the options are right
        attempt()
