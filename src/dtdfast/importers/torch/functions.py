"""Element-wise ATen operators without a record, followed until what they make together is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..functions import Function, composed, known, rescaled
from ..norms import normalised
from ..records import Refused, Value
from .call import Call, Records

BEGIN = ("exp", "expm1", "log", "log1p", "erf", "erfc", "sqrt", "rsqrt", "reciprocal", "pow", "div", "log_sigmoid")
SAME = ("clone", "detach", "_to_copy", "to", "type_as", "alias", "contiguous", "dropout", "expand", "expand_as")
# fmt: off
ELEMENTWISE = (
    *BEGIN, "add", "sub", "rsub", "mul", "neg", "square", "abs", "tanh", "sigmoid", "relu", "silu", "softplus", "clamp",
    "clamp_min", "clamp_max", "maximum", "minimum",
)
# fmt: on


def followed(records: Records, call: Call) -> Any:
    """What an operation makes of functions, or the function that it begins; None where it is an operation of values."""
    operands = call.values()
    functions = [o for o in operands if isinstance(o, Function)]
    if not functions and not _begins(call):
        return _product(records, call) if call.name in ("mul", "div") else None
    if functions and call.name in SAME:
        return functions[0].under(call.shape)
    if call.name not in ELEMENTWISE:
        raise functions[0].refused()
    if call.get("rounding_mode") is not None:
        raise Refused("it rounds, and only a true division has a rule")
    names = [key for key, value in call.arguments.items() if isinstance(value, (Value, Function)) or _tensor(value)]
    given = [v if isinstance(v := call.arguments[k], (Value, Function)) else records.array(v, k) for k in names]
    function = composed(records.layers, lambda *arrays: _applied(call, names, arrays), given, call.shape, call.name)
    if function is not None:
        return known(records.add, records.layers, function)
    if call.name in ("mul", "div") and functions and len(operands) == 2:
        return _normalised(records, call, functions[0])
    raise (functions[0].refused() if functions else Refused(f"{call.name} of several computed operands has no record"))


def _begins(call: Call) -> bool:
    if call.name not in BEGIN or len(call.values()) != 1:
        return False
    if call.name == "pow":
        return call.get("exponent") not in (1, 2)
    return call.name != "div" or not isinstance(call.self, Value)


def _product(records: Records, call: Call) -> Value | None:
    """An activation that ends in a product of records, or in a number times one."""
    operands = [call.self, call.other]
    if isinstance(operands[0], Value) != isinstance(operands[1], Value):
        x, other = operands if isinstance(operands[0], Value) else operands[::-1]
        under = call.name == "div" and x is not operands[0]
        if under or call.get("rounding_mode") is not None or (_tensor(other) and other.numel() != 1):
            return None
        numbers = np.asarray(records.array(other, "factor"))
        with np.errstate(divide="ignore"):
            return rescaled(records.add, records.layers, x, numbers if call.name == "mul" else 1 / numbers)
    if call.name == "div":
        return None
    function = composed(records.layers, np.multiply, operands, call.shape, call.name)
    found = None if function is None else known(records.add, records.layers, function)
    return found if isinstance(found, Value) else None


def _tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _applied(call: Call, names: list[str], arrays: tuple[Any, ...]) -> Any:
    import torch

    given = dict(zip(names, (torch.from_numpy(np.array(a)) for a in arrays), strict=True))
    return call.target(**call.arguments | given).numpy()


def _normalised(records: Records, call: Call, function: Function) -> Value:
    """x·f or x/f, where f is what a norm divides x by, or multiplies it with."""
    a, b = call.self, call.other
    x = a if isinstance(a, Value) else b
    if call.name == "div":
        if not isinstance(b, Function):
            raise function.refused()
        with np.errstate(all="ignore"):
            function = replace(function, values=1 / function.values)
    y = normalised(records.add, records.layers, records.entry(x), function) if isinstance(x, Value) else None
    if y is None:
        raise function.refused()
    return y
