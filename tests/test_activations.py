"""Activations: one vocabulary in every executor, their signs and derivatives, slopes per channel, and gates."""

import dataclasses
import math
from functools import lru_cache

import mpmath
import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.activations import ACTIVATIONS, LARGEST
from dtdfast.cuda.kernels import formulas
from dtdfast.oracle import maths as oracle_maths
from support import LONG, chosen, close, normal

GRID = np.array([-40, -6.5, -3, -2, -1, -0.5, -1e-3, 0, 1e-3, 0.5, 1, 2, 3, 6.5, 40])
OTHERS = [  # parameters that are no defaults
    dtd.Activation("clip", -2.0, -1.0),
    dtd.Activation("clip", -np.inf, 0.5),
    dtd.Activation("clip", 0.5, np.inf),
    dtd.Activation("threshold", 0.5, -1.0),
    dtd.Activation("threshold", -0.5, 2.0),
    dtd.Activation("threshold", 0.0, 0.5),
    dtd.Activation("silu", 1.702),
    dtd.Activation("leaky_relu", -1.0),
    dtd.Activation("hard_sigmoid", 0.2, 0.5),
    dtd.Activation("celu", 0.3),
    dtd.Activation("elu", -1.0),
    dtd.Activation("softplus", 3.0),
]


def record(kind):
    return dtd.Activation(kind, slopes=np.linspace(-0.5, 1.5, len(GRID)) if kind == "prelu" else None)


RECORDS = [*map(record, ACTIVATIONS), *OTHERS]


def name_of(value):
    return f"{value.kind}-{value.alpha}-{value.beta}" if isinstance(value, dtd.Activation) else str(value)


each_record = pytest.mark.parametrize("act", RECORDS, ids=name_of)
each_backend = pytest.mark.parametrize("backend", ["oracle", "cpu"])


@pytest.mark.parametrize("function", [oracle_maths.activate, oracle_maths.derivative])
def test_the_oracle_computes_nothing_that_it_does_not_know(function):
    stranger = record("tanh")
    object.__setattr__(stranger, "kind", "swoosh")
    with pytest.raises(NotImplementedError, match="swoosh"):
        function(stranger, GRID)


@each_backend
def test_the_tail_of_gelu_keeps_its_sign(backend):
    """x·Φ(x) by erfc, which has all digits there: a tap behind it opens by this sign."""
    x = np.array([[-6.0, -8.2, -9.0]])
    for kind, expected in (
        ("gelu", [x[0, k] / 2 * math.erfc(-x[0, k] / math.sqrt(2)) for k in range(3)]),
        ("gelu_tanh", None),
    ):
        found = dtd.predict([dtd.Activation(kind)], x, backend=backend)[0]
        assert (found < 0).all()
        if expected is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-12 if backend == "oracle" else 1e-4)
    layers = [dtd.Activation("gelu"), dtd.Scale([1.0, -1.0, -1.0]), dtd.Activation("tanh")]
    np.testing.assert_array_equal(
        dtd.explain(layers, x, np.ones((1, 3)), rules="excitation-backprop", backend=backend), [[0, 1, 1]]
    )


@each_record
def test_signs_are_never_guessed(act):
    """What the plan takes for ≥ 0 is."""
    for nonnegative in (False, True):
        x = np.sort(np.append(GRID, 0)) if act.slopes is None else GRID
        x = abs(x) if nonnegative else x
        if act.function.sign(act, nonnegative):
            assert (oracle_maths.activate(act, x[None]) >= 0).all()


@each_record
def test_derivatives(act):
    """Between kinks the difference quotient; at a kink a one-sided one, from the left unless the flat piece is to the
    right.
    """
    h = 1e-6
    for x in (GRID[None] + 0.1234567, GRID[None]):
        middle, slope = (f(act, x) for f in (oracle_maths.activate, oracle_maths.derivative))
        left = (middle - oracle_maths.activate(act, x - h)) / h
        right = (oracle_maths.activate(act, x + h) - middle) / h
        error = np.minimum(abs(slope - left), abs(slope - right))
        flat = act.kind in ("threshold", "hard_shrink") and x is GRID[None]
        assert (error <= 1e-4 * (1 + abs(slope))).all() or flat


@each_record
def test_cpu_gradients(act, rng):
    """Fused into a layer's epilogue and on its own."""
    n = len(GRID)
    for layers in ([dtd.Linear(np.eye(n)), act], [act], [act, dtd.Linear(normal(rng, 3, n))]):
        start = normal(rng, 1, dtd.predict(layers, GRID[None], backend="oracle").shape[1])
        values = [
            dtd.baselines.gradient(layers, GRID[None].astype(np.float32), start, backend=b) for b in ("cpu", "oracle")
        ]
        np.testing.assert_allclose(*values, rtol=0, atol=4e-6 * abs(values[1]).max())


RULES = [dtd.ZPlus(), dtd.Epsilon(0.25), dtd.Gamma(), dtd.AlphaBeta(bias="by_sign", stabilizer=0.1)]


@each_backend
@pytest.mark.parametrize(("act", "rule"), chosen(RECORDS, RULES), ids=name_of)
def test_relevance_passes(act, rule, backend, rng):
    """Each activation hands on what came: the layer before it explains as if the start had come without it."""
    weight, bias = normal(rng, len(GRID), 7), normal(rng, len(GRID))
    x, start = normal(rng, 3, 7), normal(rng, 3, len(GRID))
    linear, options = dtd.Linear(weight, bias), dict(rules=rule, backend=backend)
    expected = dtd.explain([linear], x, start, **options)
    close(dtd.explain([linear, act], x, start, **options), expected, backend)
    behind = [linear, act, dtd.Linear(normal(rng, 4, len(GRID)))]  # the same through the gate of the c form
    explainer = dtd.Explainer(behind, **options)
    inner = explainer.explain(x, 1)
    between = dtd.explain(behind, x, 1, stop=1, **options)
    close(inner, dtd.explain([linear], x, between, **options), backend)
    assert explainer.ledger(x, 1).closed


# --------------------------------------------------------------------------------------------------------- parameters


def test_open_ends():
    assert (dtd.Activation("clip", -np.inf, 2.0).alpha, dtd.Activation("clip", 0.5, np.inf).beta) == (-LARGEST, LARGEST)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clip", -np.inf, np.inf), ["clip", "finite"]),
        (("clip", np.inf, 2.0), ["Activation: alpha", "finite number"]),
        (("celu", 0.0), ["celu", "alpha > 0"]),
        (("soft_shrink", -1.0), ["soft_shrink", "alpha >= 0"]),
        (("prelu",), ["prelu", "slopes"]),
        (("prelu", 0.2), ["prelu", "takes no alpha"]),
        (("leaky_relu", None, None, [0.1]), ["leaky_relu", "prelu"]),
        (("prelu", None, None, [np.nan]), ["slopes", "NaN"]),
    ],
)
def test_refused_parameters(arguments, words):
    with pytest.raises(dtd.LayerError) as info:
        dtd.Activation(*arguments)
    assert all(word in str(info.value) for word in words)


# ------------------------------------------------------------------------------------------------------------- slopes


def test_slopes_that_do_not_fit(rng):
    layers = [dtd.Conv(normal(rng, 4, 3, 1, 1)), dtd.Activation("prelu", slopes=normal(rng, 5))]
    with pytest.raises(dtd.ShapeError, match=r"layer 1 \(Activation\).*\(5,\).*per channel"):
        dtd.predict(layers, normal(rng, 2, 3, 6, 6))


@each_backend
@pytest.mark.parametrize("shape", [(4,), (4, 5, 6)], ids=["per channel", "per element"])
@pytest.mark.parametrize("pooled", [False, True])
def test_slopes(shape, pooled, backend, rng):
    """In an epilogue, behind a pool, and on their own; values and gradients by NumPy."""
    slopes, weight = normal(rng, *shape).astype(float), normal(rng, 4, 3)
    x = normal(rng, 2, 3, 5, 6)
    layers = [
        dtd.Conv(weight[:, :, None, None]),
        *([dtd.AvgPool(1)] if pooled else []),
        dtd.Activation("prelu", slopes=slopes),
    ]
    y = np.einsum("oc,nchw->nohw", weight.astype(float), x)
    wide = slopes.reshape(4, *(shape[1:] or (1, 1)))
    close(dtd.predict(layers, x, backend=backend), np.where(y > 0, y, wide * y), backend)
    start = normal(rng, *y.shape)
    expected = np.einsum("oc,nohw->nchw", weight.astype(float), np.where(y > 0, start, wide * start))
    close(dtd.baselines.gradient(layers, x, start, backend=backend), expected, backend)


# -------------------------------------------------------------------------------------------------------------- gates

AFFINE = {"1 + sigmoid": (1.0, 1.0), "2 sigmoid": (2.0, None), "1 - sigmoid": (-1.0, 1.0), "2 sigmoid - 1": (2.0, -1.0)}


def gated(rng, scale, shift, kind="sigmoid", signal="tanh"):
    shifts = None if shift is None else np.full(4, shift)
    return [
        dtd.Linear(normal(rng, 4, 3)),
        dtd.Activation(signal),
        dtd.Linear(normal(rng, 4, 3), inputs=dtd.INPUT),
        dtd.Activation(kind),
        dtd.Scale(np.full(4, scale), shifts),
        dtd.Mul(inputs=(4, 1)),
    ]


@each_backend
@pytest.mark.parametrize("kind", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("name", AFFINE)
def test_affine_images_of_a_sigmoid_are_gates(name, kind, backend, rng):
    layers, x, start = gated(rng, *AFFINE[name], kind), normal(rng, 3, 3), normal(rng, 3, 4)
    close(dtd.explain(layers, x, start, backend=backend), dtd.explain(layers[:2], x, start, backend=backend), backend)


def test_a_plain_sigmoid_is_the_gate_of_an_affine_image(rng):
    """σ(a)·(2σ(b) − 1): the second is a tanh, written out, and carries the signal."""
    layers = [*gated(rng, 2.0, -1.0), dtd.Linear(normal(rng, 4, 3), inputs=dtd.INPUT), dtd.Activation("sigmoid")]
    layers.append(dtd.Mul(inputs=(4, 7)))
    x, start = normal(rng, 3, 3), normal(rng, 3, 4)
    wired = [dataclasses.replace(layers[2], inputs=dtd.INPUT), layers[3], dataclasses.replace(layers[4], inputs=None)]
    expected = dtd.explain(wired, x, start, backend="oracle")
    close(dtd.explain(layers, x, start, backend="oracle"), expected, "oracle")


@each_backend
def test_the_gradient_of_what_a_gate_alone_reads(backend, rng):
    """y = u σ(v): relevance passes none of it on to v, the gradient does."""
    layers = [dtd.Linear(normal(rng, 4, 3)), dtd.Linear(normal(rng, 4, 3), inputs=dtd.INPUT), dtd.Activation("sigmoid")]
    x = normal(rng, 5, 3)
    u, v = (dtd.predict(layers[:n], x, backend="oracle") for n in (1, 2))
    s = 1 / (1 + np.exp(-v))
    for stop, expected in ((1, u * s * (1 - s)), (2, u), (0, s)):
        found = dtd.baselines.gradient(
            [*layers, dtd.Mul(inputs=(0, 2))], x, np.ones((5, 4)), stop=stop, backend=backend
        )
        close(found, expected, backend)


@pytest.mark.parametrize("signal", ["sigmoid", "hard_sigmoid"])
def test_two_gates_are_refused(signal, rng):
    layers = gated(rng, 1.0, 0.0, signal=signal)
    layers[5] = dtd.Mul(inputs=(3, 1))
    with pytest.raises(dtd.LayerError, match="2 of its operands"):
        dtd.explain(layers, normal(rng, 3, 3), 0)
    scaled = [*layers[:5], dtd.Scale(np.full(4, 2.0), inputs=1), dtd.Mul(inputs=(4, 5))]
    with pytest.raises(dtd.LayerError, match="2 of its operands"):
        dtd.explain(scaled, normal(rng, 3, 3), 0)


@each_backend
@pytest.mark.parametrize("kind", ["sigmoid", None])
def test_a_square_hands_all_to_its_operand(kind, backend, rng):
    """Whether a gate or none: its two operands are one."""
    layers = [dtd.Linear(normal(rng, 4, 3)), *([dtd.Activation(kind)] if kind else [])]
    squared = [*layers, dtd.Mul(inputs=(len(layers) - 1,) * 2)]
    x, start = normal(rng, 3, 3), normal(rng, 3, 4)
    expected = dtd.explain(layers, x, start, backend=backend)
    close(dtd.explain(squared, x, start, backend=backend), expected, backend)
    assert dtd.Explainer(squared, backend=backend).ledger(x, start).closed
    close(dtd.explain(squared, x, start, backend=backend, attention="taylor"), expected, backend)


# ---------------------------------------------------------------------------------------------------------- precision

WIDE = np.concatenate([np.logspace(-30, 30, 61), np.linspace(0.013, 40, 60)])[:: 1 if LONG else 2]
WIDE = np.unique(np.concatenate([-WIDE, WIDE]).astype(np.float32))
KINDS = {  # value at x, in arithmetic of any precision
    "tanh_shrink": lambda mp, x: x - mp.tanh(x),
    "elu": lambda mp, x: x if x > 0 else mp.expm1(x),
    "selu": lambda mp, x: SELU[1] * (x if x > 0 else SELU[0] * mp.expm1(x)),
    "celu": lambda mp, x: x if x > 0 else mp.expm1(x),
    "silu": lambda mp, x: x / (1 + mp.exp(-x)),
    "gelu": lambda mp, x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda mp, x: x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + 0.044715 * x**3))),
    "mish": lambda mp, x: x * mp.tanh(mp.log1p(mp.exp(x))),
    "sigmoid": lambda mp, x: 1 / (1 + mp.exp(-x)),
    "log_sigmoid": lambda mp, x: -mp.log1p(mp.exp(-x)),
    "hard_swish": lambda mp, x: x * min(max(x + 3, 0), 6) / 6,
    "tanh": lambda mp, x: mp.tanh(x),
    "softplus": lambda mp, x: mp.log1p(mp.exp(x)),
    "softsign": lambda mp, x: x / (1 + abs(x)),
}
SELU = (oracle_maths.SELU_ALPHA, oracle_maths.SELU_SCALE)


def emulated(kind, derivative):
    """The CUDA formulas, in NumPy's float32."""
    act = record(kind)
    function = (formulas.DERIVATIVES if derivative else formulas.ACTIVATIONS)[kind]
    a, b = (np.float32(v or 0) for v in (act.alpha, act.beta))
    erfc = np.vectorize(math.erfc, otypes=[np.float32])
    float32 = {
        "exp": np.exp,
        "expm1": np.expm1,
        "log1p": np.log1p,
        "tanh": np.tanh,
        "erfc": lambda v: np.float32(erfc(v)),
    }
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(formulas, "math", type("Math", (), {k: staticmethod(f) for k, f in float32.items()}))
        return np.array([function(v, a, b) for v in WIDE])


@pytest.mark.parametrize("backend", ["oracle", "cpu", "cuda formulas"])
@pytest.mark.parametrize("derivative", [False, True], ids=["value", "derivative"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_digits_are_lost_from_1e_30_to_1e30(kind, derivative, backend):
    """|error| ≤ 16 u (|f| + |x f'|): at most 16 roundings, of what is computed and of arguments, and one of what
    underflows.
    """
    if backend == "cuda formulas":
        found = emulated(kind, derivative)
    elif derivative:
        found = dtd.baselines.gradient([record(kind)], WIDE[None], np.ones((1, len(WIDE))), backend=backend)[0]
    else:
        found = dtd.predict([record(kind)], WIDE[None], backend=backend)[0]
    exact, slope = derivatives(kind)[derivative : derivative + 2]
    u, least = (2.0**-53, 0.0) if backend == "oracle" else (2.0**-24, 2.0**-149)
    underflow = (least + 2.0**-1022) * (4 + 4 * abs(WIDE.astype(float)).clip(max=200))
    wrong = ~(abs(found - exact) <= 16 * u * (abs(exact) + abs(WIDE * slope)) + underflow)
    assert not wrong.any(), (WIDE[wrong], found[wrong], exact[wrong])


@lru_cache
def derivatives(kind):
    """The function, its slope and that of its slope over WIDE; beyond ±1000 it is straight to the last digit, or
    decays to its limit.
    """
    rows = []
    with mpmath.workdps(450), np.errstate(all="ignore"):
        for v in WIDE:
            x, h = mpmath.mpf(float(v)), mpmath.mpf(10) ** -50 * abs(float(v))
            below, here, above = (KINDS[kind](mpmath, t) for t in (x - h, x, x + h))
            rows.append((here, (above - below) / (2 * h), (above - 2 * here + below) / h**2))
        return np.array(rows, float).T
