"""The claims about transformers, on small ones with random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dtdfast as dtd
from rows import CLAIMS, ORACLE, Claim, claim

Array = NDArray[np.float64]

TOKENS, WIDTH, HEADS, CLASSES = 7, 24, 4, 3
POSITIONS = 0.4
"""Standard deviation of the position table; that of words is 1. Shares of positions grow with it."""

OURS = "derived here"
ALI = "Ali et al. 2022, arXiv:2202.07304"
ACHTIBAT = "Achtibat et al. 2024, arXiv:2402.05602"
YOU = "You et al. 2025, arXiv:2510.18810"
BAKISH = "Bakish et al. 2025, arXiv:2506.02138"
JAFARI = "Rezaei Jafari et al. 2025, arXiv:2508.21258"


@dataclass
class Transformer:
    """Two blocks with norms before attention and MLP, a mean over tokens, and linear outputs, without biases.

    Attributes
    ----------
    layers : its records
    softmax : the position of the last block's softmax
    """

    seed: int
    norm: str = "LayerNorm"
    layers: list[dtd.Layer] = field(default_factory=list)
    softmax: int = -1

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.positions = POSITIONS * self.rng.standard_normal((TOKENS, WIDTH))
        self.blocks = [
            {key: self.rng.standard_normal(shape) / np.sqrt(shape[1]) for key, shape in SHAPES.items()}
            for _ in range(2)
        ]
        self.head = self.rng.standard_normal((CLASSES, WIDTH)) / np.sqrt(WIDTH)
        x = self.put(dtd.Add(inputs=(dtd.INPUT, self.put(dtd.Constant(self.positions)))))
        for weights in self.blocks:
            x = self.put(dtd.Add(inputs=(x, self.attend(self.normed(x), weights))))
            up = self.put(dtd.Linear(weights["up"], inputs=self.normed(x)))
            down = self.put(dtd.Linear(weights["down"], inputs=self.put(dtd.Activation("gelu", inputs=up))))
            x = self.put(dtd.Add(inputs=(x, down)))
        self.put(dtd.Reduce("mean", 1, inputs=self.normed(x)))
        self.put(dtd.Linear(self.head))

    def put(self, record: dtd.Layer) -> int:
        self.layers.append(record)
        return len(self.layers) - 1

    def normed(self, x: int) -> int:
        return self.put(dtd.LayerNorm(inputs=x) if self.norm == "LayerNorm" else dtd.RMSNorm(inputs=x))

    def attend(self, x: int, weights: dict[str, Array]) -> int:
        q, k, v = (self.heads(self.put(dtd.Linear(weights[key], inputs=x))) for key in "qkv")
        scores = self.put(dtd.MatMul(transpose_b=True, scale=(WIDTH // HEADS) ** -0.5, inputs=(q, k)))
        self.softmax = self.put(dtd.Softmax(-1, inputs=scores))
        mixed = self.put(dtd.Permute((0, 2, 1, 3), inputs=self.put(dtd.MatMul(inputs=(self.softmax, v)))))
        return self.put(dtd.Linear(weights["o"], inputs=self.put(dtd.Reshape((TOKENS, WIDTH), inputs=mixed))))

    def heads(self, x: int) -> int:
        return self.put(
            dtd.Permute((0, 2, 1, 3), inputs=self.put(dtd.Reshape((TOKENS, HEADS, WIDTH // HEADS), inputs=x)))
        )

    def words(self, n: int = 4) -> Array:
        return self.rng.standard_normal((n, TOKENS, WIDTH))

    def held(self, x: Array) -> Any:
        """A function of one sample's words that takes attention weights, norms' scales and gelu(y)/y from x: RelP's
        and CP-LRP's modified network, in NumPy.
        """
        factors: list[Array] = []
        self._run(x, factors, [])
        return lambda other: self._run(other, [], list(factors))

    def _run(self, x: Array, made: list[Array], given: list[Array]) -> Array:
        def factor(value: Any) -> Array:
            made.append(given.pop(0) if given else value())
            return made[-1]

        def norm(x: Array) -> Array:
            x = x - x.mean(-1, keepdims=True)
            return x * factor(lambda: 1 / np.sqrt((x * x).mean(-1, keepdims=True) + dtd.LayerNorm().eps))

        def softmax(scores: Array) -> Array:
            e = np.exp(scores - scores.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True)

        x = x + self.positions
        for w in self.blocks:
            h = norm(x)
            q, k, v = ((h @ w[key].T).reshape(TOKENS, HEADS, -1).swapaxes(0, 1) for key in "qkv")
            weights = factor(lambda q=q, k=k: softmax(q @ k.swapaxes(1, 2) / np.sqrt(WIDTH // HEADS)))
            x = x + (weights @ v).swapaxes(0, 1).reshape(TOKENS, WIDTH) @ w["o"].T
            y = norm(x) @ w["up"].T
            x = x + (y * factor(lambda y=y: 0.5 * (1 + ERF(y / np.sqrt(2))))) @ w["down"].T
        return self.head @ norm(x).mean(0)


ERF = np.vectorize(math.erf)
SHAPES = dict.fromkeys("qkvo", (WIDTH, WIDTH)) | {"up": (4 * WIDTH, WIDTH), "down": (WIDTH, 4 * WIDTH)}


# ------------------------------------------------------------------------------- 10: how a product of three is written


def of_three(*products: dtd.Layer) -> Array:
    picks = [dtd.Slice(1, k, k + 1, inputs=dtd.INPUT) for k in range(3)]
    relevance: Array = dtd.explain([*picks, *products], np.array([[2.0, 3.0, 4.0]]), 0, rules="attnlrp", **ORACLE)
    return relevance[0]


@claim("10 (x₁x₂)x₃ at (2, 3, 4) by halves: R = (6, 6, 12): largest difference", YOU, 0.0, "<=")
def _left_first(seed: int) -> float:
    return float(np.abs(of_three(dtd.Mul(inputs=(0, 1)), dtd.Mul(inputs=(3, 2))) - [6, 6, 12]).max())


@claim("10 x₁(x₂x₃), the same function: R = (12, 6, 6): largest difference", YOU, 0.0, "<=")
def _right_first(seed: int) -> float:
    return float(np.abs(of_three(dtd.Mul(inputs=(1, 2)), dtd.Mul(inputs=(0, 3))) - [12, 6, 6]).max())


# ------------------------------------------------------------------------------------ 11: what AttnLRP does not hand on


@claim(
    "11 AttnLRP's softmax: ΣR(x) = Σ x R(s) − (Σ s x)(ΣR(s)) where R = x(R(s) − s ΣR(s)): largest difference / Σ|R|",
    ACHTIBAT,
    1e-13,
    "<=",
)
def _softmax(seed: int) -> float:
    net = Transformer(seed)
    x = net.words()
    options: dict[str, Any] = dict(rules="attnlrp", **ORACLE)
    scores = dtd.predict(net.layers[: net.softmax], x, **ORACLE)
    s = np.exp(scores - scores.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    r_s = dtd.explain(net.layers, x, 0, stop=net.softmax, **options)
    r_x = dtd.explain(net.layers, x, 0, stop=net.softmax - 1, **options)
    expected = scores * (r_s - s * r_s.sum(-1, keepdims=True))
    return float(np.abs(r_x - expected).max() / np.abs(r_x).sum(axis=(1, 2, 3)).min())


def softmax_share(rules: str) -> Any:
    def measure(seed: int) -> float:
        net = Transformer(seed)
        ledger = dtd.Explainer(net.layers, rules=rules, **ORACLE).ledger(net.words(), 0)
        assert ledger.closed
        return float(np.abs(ledger.absorbed["softmax"] / ledger.start).max())

    return measure


CLAIMS.append(
    Claim("11 so AttnLRP does not conserve: largest share at softmaxes", ACHTIBAT, 0.05, softmax_share("attnlrp"), ">=")
)
CLAIMS.append(Claim("11 the same, CP-LRP", ALI, 0.0, softmax_share("cp-lrp"), "<="))


@claim("11 one token: the share that AttnLRP's attention hands on", OURS, 0.5)
def _one_token(seed: int) -> float:
    weight = np.random.default_rng(seed).standard_normal((4, 3, 3))
    q, k, v = (dtd.Linear(w, inputs=dtd.INPUT) for w in weight[:3])
    mix = [dtd.MatMul(transpose_b=True, inputs=(0, 1)), dtd.Softmax(-1), dtd.MatMul(inputs=(4, 2))]
    layers = [q, k, v, *mix, dtd.Flatten(), dtd.Linear(weight[3])]
    x = np.random.default_rng(seed).standard_normal((1, 1, 3))
    relevance, outputs = dtd.explain(layers, x, 0, rules="attnlrp", return_outputs=True, **ORACLE)
    return float(relevance.sum() / outputs[0, 0])


# --------------------------------------------------------------------------------------------- 12: position encodings


def kept(positions: bool) -> Any:
    """How far the relevance of words is from the output, with or without that of the position table."""

    def measure(seed: int) -> float:
        net = Transformer(seed)
        ledger = dtd.Explainer(net.layers, rules="cp-lrp", **ORACLE).ledger(net.words(), 0)
        arrived = ledger.end + (ledger.absorbed["constant"] if positions else 0)
        return float(np.abs(arrived - ledger.start).max() / np.abs(ledger.start).max())

    return measure


CLAIMS.append(Claim("12 CP-LRP, words and positions: largest |ΣR − f| / largest |f|", BAKISH, 1e-13, kept(True), "<="))
CLAIMS.append(Claim("12 the same, positions dropped: at least", BAKISH, 0.05, kept(False), ">="))


# ------------------------------------------------------------------------------------------------------------ 13: RelP


@claim(
    "13 RelP (attention, norms and gelu(y)/y held) is CP-LRP: gradient × input of the held network: "
    "largest difference / largest value",
    JAFARI,
    1e-12,
    "<=",
)
def _relp(seed: int) -> float:
    net = Transformer(seed)
    x = net.words(1)
    held = net.held(x[0])
    zero = held(np.zeros_like(x[0]))[0]
    # affine in the words, so that one number alone gives its gradient × input without error of a difference quotient
    alone = x[0].reshape(-1, 1, 1) * np.eye(x[0].size).reshape(-1, *x[0].shape)
    expected = np.array([held(one)[0] - zero for one in alone]).reshape(x[0].shape)
    found = dtd.explain(net.layers, x, 0, rules="cp-lrp", **ORACLE)[0]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# -------------------------------------------------------------------------------------------- 14: z⁺ on transformers


def where(rule: dtd.Rule, what: str, norm: str = "LayerNorm") -> Any:
    """The share of a start of 1 that comes to the words, or to a cause."""

    def measure(seed: int) -> float:
        net = Transformer(seed, norm)
        start = np.tile(np.eye(CLASSES)[0], (4, 1))
        ledger = dtd.Explainer(net.layers, rules=rule, **ORACLE).ledger(net.words(), start)
        return float(np.mean(ledger.end if what == "words" else ledger.absorbed[what]))

    return measure


BY_SIGN = "14 z⁺ by the sign of y, two random blocks"
CLAIMS.append(
    Claim(f"{BY_SIGN}: share that comes to the words", OURS, 0.82, where(dtd.ZPlusBySign(), "words"), unit=0.01)
)
CLAIMS.append(Claim(f"{BY_SIGN}: to the positions", OURS, 0.18, where(dtd.ZPlusBySign(), "constant"), unit=0.01))
CLAIMS.append(Claim(f"{BY_SIGN}: lost", OURS, 1e-13, where(dtd.ZPlusBySign(), "zero denominator"), "<="))
CLAIMS.append(Claim("14 the same, plain z⁺: lost, at least", OURS, 0.25, where(dtd.ZPlus(), "zero denominator"), ">="))
CLAIMS.append(
    Claim(
        "14 the same, plain z⁺, RMSNorm: lost, at least",
        OURS,
        0.6,
        where(dtd.ZPlus(), "zero denominator", "RMSNorm"),
        ">=",
    )
)


@claim("14 z⁺ by the sign of y, a positive start: min R", OURS, 0.0, ">=")
def _positive(seed: int) -> float:
    net = Transformer(seed)
    start = np.tile(np.eye(CLASSES)[0], (4, 1))
    return float(dtd.explain(net.layers, net.words(), start, rules=dtd.ZPlusBySign(), **ORACLE).min())
