"""Contractions as NumPy computes them on host memory: what stands for the tensor-core kernels where the rest of the
executor is tested.

Operands are rounded as a kernel's unit rounds them, x and the mapped weights; sums are in float64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import prod
from typing import Any
from weakref import WeakMethod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dtdfast import vocabulary
from dtdfast.cuda.run import tiles
from dtdfast.cuda.run.contraction import bf16, bodies, scratch_bytes  # noqa: F401 (the executor asks for them)
from dtdfast.cuda.run.operations import _taps
from dtdfast.cuda.run.site import Site
from dtdfast.cuda.run.strided import D, Strided, W
from dtdfast.plan.plan import Plan
from dtdfast.plan.steps import Step, Weights
from host import HostCall
from kernel_reference import ACTIVATIONS, MULTIPLIERS, WEIGHT_MAPS, quotient, stabilised

_WEIGHT_MAPS = {name: WEIGHT_MAPS[row.c] for name, row in vocabulary.WEIGHT_MAPS.items()}
_MULTIPLIERS = {name.removeprefix("M_").replace("_", " ").lower(): f for name, f in MULTIPLIERS.items()}


def _as_bf16(values: Any) -> Any:
    return widened(bf16(values.astype(np.float32)))


def _as_tf32(values: Any) -> Any:
    """11 bits of significand, to nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFF) + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


# of units that round; the others keep float32's digits
_ROUNDING: dict[str, Callable[[Any], Any]] = {
    "tf32": _as_tf32,
    "bf16": _as_bf16,
    "bf16_rounded": _as_bf16,
    "bf16_wgmma": _as_bf16,
    "tf32_wgmma": _as_tf32,
}


def packing_key(weights: Weights) -> Any:
    return weights.key


def packing(weights: Weights) -> Any:
    """(groups, outputs, inputs, taps), outputs and inputs of what is computed; rounded where they are kept in
    bfloat16.
    """
    part = weights.part
    groups = part.taps.groups
    w = part.weight.reshape(groups, part.weight.shape[0] // groups, part.weight.shape[1], -1)
    if weights.taps:
        w = w[..., list(weights.taps)]
    elif weights.layout != "rows":
        w = w[..., :0]
    w = np.ascontiguousarray(w.swapaxes(1, 2) if weights.scatter else w, np.float32)
    return widened(bf16(w)) if weights.real == "bf16" else w


def widened(values: Any) -> Any:
    """bfloat16 as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _memory_of(view: Strided, shape: tuple[int, ...]) -> Any:
    kind, dtype = (ctypes.c_uint16, np.uint16) if view.dtype == "bf16" else (ctypes.c_float, np.float32)
    return as_strided(np.frombuffer((kind * 1).from_address(view.at), dtype), shape, view.strides)


def array_at(view: Strided, shape: tuple[int, ...], repeat: int = 1) -> Any:
    """The numbers of a view."""
    if not view.at:
        return None
    found = _memory_of(view, (shape[0] // repeat, *shape[1:]) if view.kept else shape)
    found = widened(found) if view.dtype == "bf16" else found
    return np.repeat(found, repeat, axis=0) if view.kept else found


def put(view: Strided, shape: tuple[int, ...], values: Any) -> None:
    _memory_of(view, shape)[...] = bf16(values.astype(np.float32)) if view.dtype == "bf16" else values


def launches(step: Step, plan: Plan, address_of: Any, precision: str = "float32", *ignored: Any) -> list[HostCall]:
    weak = WeakMethod(address_of)  # a graph of the device keeps no plan alive, and so does one of these
    site = Site(step, plan, lambda thing: weak()(thing))
    if step.op == "MATMUL":
        return [HostCall(lambda: _matmul(site))]
    address_of(step.weights)  # NumPy has its own, but the device is given them
    # nothing may be uploaded later
    _taps(site), site.window(), site.per_channel(step.bias), site.per_channel(step.bias_d)
    unit = "bf16" if step.x.buffer.root.dtype == "bf16" else tiles.UNITS[precision][0]
    rounded = _ROUNDING.get(unit, np.asarray)
    return [HostCall(lambda: _run(site, rounded))]


def _matmul(site: Site) -> None:
    step, shape = site.step, site.shape(site.step.out)

    def values(view: Any) -> Any:
        return array_at(site.operand(view), (shape[0], *site.shape(view)[1:]), step.repeat).astype(np.float64)

    with np.errstate(all="ignore"):
        result = step.coefficient * np.einsum("ncdike,ncdkje->ncdije", values(step.x), values(step.other))
        if step.multiplier != "none":
            result = _MULTIPLIERS[step.multiplier](values(step.m)) * result
        out = site.view(step.out)
        put(out, shape, array_at(out, shape) + result if step.accumulate else result)


def _sums(site: Site, weight_map: str, rounded: Callable[[Any], Any]) -> Any:
    """Σ x·wm(w) in float64, of rounded operands."""
    step, (n, c_out, *space, _) = site.step, site.shape(site.step.out)
    part = step.weights.part
    w = _WEIGHT_MAPS[weight_map](packing(step.weights).astype(np.float64), step.gamma)
    if step.op == "SCATTER_LINEAR":
        w = w.swapaxes(1, 2)
    groups, _, c_in, _ = w.shape
    w = np.ascontiguousarray(np.moveaxis(rounded(w), -1, 0), np.float64)  # [tap][group][out][in]
    total = np.zeros((n, groups, c_out // groups, prod(space)))
    x, _, _ = _taps(site)
    places = [
        sum(o * s for o, s in zip(o_, site.view(step.x).strides[D : W + 1], strict=True)) for _, o_ in step.phase.taps
    ]
    if part.linear:
        places = [0]
    for k, place in enumerate(places):
        values = array_at(Strided(x.at + place, x.strides, dtype=x.dtype), (n, groups * c_in, *space, 1))
        total += w[k] @ rounded(values).reshape(n, groups, c_in, -1).astype(np.float64)
    return total.reshape(n, c_out, *space, 1)


def _run(site: Site, rounded: Callable[[Any], Any]) -> None:
    with np.errstate(all="ignore"):
        (_neuron if site.step.op.startswith("NEURON") else _product)(site, rounded)


def _product(site: Site, rounded: Callable[[Any], Any]) -> None:
    step, shape = site.step, site.shape(site.step.out)
    out, scale = site.view(step.out), array_at(site.window(), shape)
    result = _sums(site, step.weight_map, rounded) * (1 if scale is None else scale)
    if step.multiplier != "none":
        result = (
            _MULTIPLIERS[step.multiplier](array_at(site.view(step.m, kept=True), shape, step.repeat).astype(np.float64))
            * result
        )
    put(out, shape, array_at(out, shape) + result if step.accumulate else result)


def _neuron(site: Site, rounded: Callable[[Any], Any]) -> None:
    step, shape = site.step, site.shape(site.step.out)

    def read(view: Strided) -> Any:
        found = array_at(view, shape)
        return None if found is None else found.astype(np.float64)

    scale = read(site.window())
    s = 1.0 if scale is None else scale
    y = s * _sums(site, "w", rounded)
    z = s * _sums(site, "w+", rounded) if step.dual else y
    y_prev, terms_prev = read(site.view(step.y_prev)), read(site.view(step.terms_prev))
    y = y if y_prev is None else y + y_prev
    z = (z if terms_prev is None else z + terms_prev) if step.dual else y
    bias, bias_d = read(site.per_channel(step.bias)), read(site.per_channel(step.bias_d))
    before, y = y, y if bias is None else y + bias
    kind, alpha, beta = step.activation
    act, slope = ACTIVATIONS[kind.upper()]
    value = act(y, alpha, beta)
    put(site.view(step.out), shape, value)
    if step.terms is not None:
        put(site.view(step.terms), shape, z)
    if step.factor is None:
        return
    d = stabilised(z if bias_d is None else z + bias_d, step.stabilizer)
    factors = {
        "gate": lambda: quotient(step.coefficient * value, d) * s,
        "denominator": lambda: d / (step.coefficient * s),
        "derivative": lambda: slope(y, alpha, beta) * s,
        "signed": lambda: np.where(y < 0, np.minimum(before - z, 0) - step.stabilizer, z + step.stabilizer) / s,
    }
    result = factors[step.factor_kind]()
    if step.select != "all":
        result = np.where(y > 0 if step.select == "y>0" else y < 0, result, 0)
    put(site.view(step.factor), shape, result)
