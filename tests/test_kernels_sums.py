"""Sums over samples in float64, for the ledger, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernel_checks import LAYOUTS, each, each_kernels, operand, same_bits
from kernel_steps import Kernels, Step, lib, place, vector
from support import over

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 17, 33, 31), (1, 65, 40, 20), (2, 520, 3, 3)]
U = 2.0**-53


def blocks(n: int, columns: int, count: int) -> Any:
    """Where sums go: blocks lie side by side."""
    return place(np.full((n, columns, 1, 1, count, 1), np.nan), order=(0, 1, 2, 3, 4, 5), gap=3)


def total(out: Any) -> Any:
    """The sums of whole samples, (n, columns)."""
    return out.sum(axis=(2, 3, 4, 5))


def close(found: Any, terms: Any) -> bool:
    """Whether sums (n,) are those of terms (n, ...), each of at most 8 roundings in double.

    An element goes through at most 128 additions in a lane of two or more, 3 of lanes, one for each 128 elements or
    more, and one for each block.
    """
    rows = terms.reshape(len(terms), -1).astype(np.longdouble)
    bound = (8 + 131 + rows.shape[1] / 128 + 3) * U * np.abs(rows).sum(axis=1)
    return bool((np.abs(found - rows.sum(axis=1)) <= bound).all())


MULTIPLIERS = {
    "NONE": lambda m: np.ones_like(m), "TIMES": lambda m: m, "POSITIVE": lambda m: m > 0,
    "NEGATIVE": lambda m: m < 0, "TIMES_POSITIVE": lambda m: np.maximum(m, 0),
    "TIMES_NEGATIVE": lambda m: np.minimum(m, 0), "SIGN": lambda m: np.where(m < 0, -1, 1), "ABSOLUTE": abs,
}  # fmt: skip


@each("shape", SHAPES, 2)
@over("multiplier", MULTIPLIERS)
def test_sums(kernels: Kernels, shape: Any, multiplier: str) -> None:
    rng = np.random.default_rng([*shape, len(multiplier)])
    x, m = operand(kernels, rng, shape), operand(kernels, rng, shape, zeros=True)
    numbers = {"multiplier": getattr(lib, f"DTD_M_{multiplier}")}
    terms = MULTIPLIERS[multiplier](m.astype(np.float64)) * x.astype(np.float64)
    for count in (1, 3):
        out = blocks(shape[0], 2, count)
        arrays = {"x": x, "out": out, "m": None if multiplier == "NONE" else m}
        Step("SUMS", arrays, numbers).run(kernels, n_threads=2)
        assert close(total(out)[:, 0], terms)
        assert close(total(out)[:, 1], abs(terms))


KINDS = ("NONE", "GATE", "DENOMINATOR", "SIGNED")


@each("shape", SHAPES, 2)
@over("seed", range(12))
def test_account(kernels: Kernels, shape: Any, seed: int) -> None:
    """Every field there or not, in turn."""
    rng = np.random.default_rng([*shape, seed])

    def perhaps(**options: Any) -> Any:
        return operand(kernels, rng, shape, **options) if rng.random() < 0.5 else None

    def per_channel() -> Any:
        return vector(kernels.normal(rng, shape[1])) if rng.random() < 0.5 else None

    kind, select = (str(rng.choice(names)) for names in (KINDS, ["ANY_SIGN", "POSITIVE", "NEGATIVE", "NONZERO"]))
    arrays: dict[str, Any] = {"x": operand(kernels, rng, shape), "m": perhaps(zeros=True), "terms": perhaps(),
                              "terms_prev": perhaps(zeros=True), "bias_d": per_channel()}  # fmt: skip
    if kind != "NONE":
        arrays["factor"] = operand(kernels, rng, shape, zeros=True)
    if select != "ANY_SIGN":
        arrays["y_prev"], arrays["bias"] = operand(kernels, rng, shape, zeros=True), per_channel()
    if rng.random() < 0.5:
        arrays["scale"] = np.broadcast_to(place(kernels.uniform(rng, 1, 1, 1, *shape[2:], 1) + 1), arrays["x"].shape)
    coefficient, stabilizer, gamma = (float(rng.choice(v)) for v in ((1, 2, -1), (0, 0.25), (0, 0.5)))
    numbers = {"factor_kind": getattr(lib, f"DTD_F_{kind}"), "select": getattr(lib, f"DTD_{select}"),
               "coefficient": coefficient, "stabilizer": stabilizer, "gamma": gamma}  # fmt: skip
    out = blocks(shape[0], 8, 3)
    Step("ACCOUNT", {**arrays, "out": out}, numbers).run(kernels)

    wide = {k: a.astype(np.float64) for k, a in arrays.items() if a is not None}
    column = (1, -1, 1, 1, 1, 1)
    x, b = wide["x"], wide["bias_d"].reshape(column) if "bias_d" in wide else 0.0
    r, t = x * wide.get("m", 1.0), x
    if kind == "GATE":
        t = x * wide["factor"]
    elif kind != "NONE":
        t = np.divide(x, wide["factor"], out=np.zeros_like(x), where=wide["factor"] != 0)
    if select != "ANY_SIGN":
        y = arrays["y_prev"]
        y = y if arrays["bias"] is None else y + arrays["bias"].reshape(column)
        chosen = {"POSITIVE": y > 0, "NEGATIVE": y < 0, "NONZERO": y != 0}[select]
        r, t = r * chosen, t * chosen
    empty = wide["terms_prev"] == 0 if "terms_prev" in wide else np.zeros(x.shape, bool)
    came, r = r, np.where(empty & (coefficient > 0), 1, coefficient) * r
    t = np.where(empty & (coefficient < 0), 0, t) / wide.get("scale", 1.0)
    sign = np.where(r < 0, -1, 1)  # of r; that of d = r/t is sign · sgn t
    absorbed = t * b + gamma * np.where(t * r < 0, -1, 1) * t * abs(b)
    plain = not stabilizer and not {"bias_d", "terms_prev", "y_prev", "scale"} & wide.keys()
    stabilised = 0 * t if plain else abs(t) * sign  # which a stabilizer of 0 leaves out
    shared = t * wide["terms"] if "terms" in wide else (r - absorbed - stabilizer * stabilised) * (t != 0)
    expected = [came, abs(came), r * (t == 0), absorbed, stabilised, abs(absorbed), abs(stabilised), abs(shared)]
    sums = total(out)
    for number, terms in enumerate(expected[:7]):
        assert close(sums[:, number], terms), number
    size = abs(r) + 2 * abs(t * b) * (1 + gamma) + stabilizer * abs(t) if "terms" not in wide else abs(shared)
    bound = (16 + 131 + x[0].size / 128 + 3) * U * size.reshape(len(x), -1).sum(axis=1)
    assert (abs(sums[:, 7] - abs(shared).reshape(len(x), -1).sum(axis=1)) <= bound).all()


@each_kernels
@over("op", ["SUMS", "ACCOUNT"])
def test_bits_depend_on_one_sample_alone(kernels: Kernels, op: str) -> None:
    """Not on the batch, the number of threads, or what lies around a sample."""
    rng = np.random.default_rng(5)
    arrays = {"x": kernels.normal(rng, 5, 48, 1, 40, 33, 1)}
    columns, numbers, bias = 2, {}, None
    if op == "ACCOUNT":
        arrays["factor"], bias = kernels.normal(rng, *arrays["x"].shape), vector(kernels.normal(rng, 48))
        columns, numbers = 8, {"factor_kind": lib.DTD_F_DENOMINATOR, "stabilizer": 0.1}

    def sums(first: int, last: int, threads: int, order: Any) -> Any:
        out = blocks(last - first, columns, 16)
        placed = {name: place(a[first:last], order=order) for name, a in arrays.items()}
        Step(op, {**placed, "bias_d": bias, "out": out}, numbers).run(kernels, n_threads=threads)
        return out

    for order in LAYOUTS.values():
        together = sums(0, 5, 1, order)
        assert same_bits(together, sums(0, 5, 3, order))
        for i in range(5):
            assert same_bits(together[i : i + 1], sums(i, i + 1, 2, order))
