"""Convolutions and pools of tensors whose first axis holds samples × windows (or frames): the windows become one more
spatial axis, along which the kernel has size 1.
"""

from __future__ import annotations

from typing import Any

from ... import layers as L
from ..records import Refused, Value
from .call import Call, Records, spread

SPACES = {"conv1d": 1, "conv2d": 2, "max_pool1d": 1, "max_pool2d": 2, "avg_pool1d": 1, "avg_pool2d": 2}
"""The operators, by their spatial axes."""


def widened(call: Call) -> dict[str, Any]:
    """The arguments of a call with one more spatial axis in front of its own."""
    n, arguments = SPACES[call.name], dict(call.arguments)
    if call.name.startswith("conv"):
        arguments["weight"] = call.weight.unsqueeze(2)
    for key, one in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
        value = arguments.get(key)
        if value is not None and value != [] and not isinstance(value, str):
            arguments[key] = [one, *spread(value, n)]
    return arguments


def spatial(records: Records, value: Value, call: Call) -> Value:
    """Samples (windows, channels, …) as (channels, windows, …)."""
    if len(value.shape) != SPACES[call.name] + 2:
        raise Refused("its operand has the batch within another axis than the first; view it as (samples × …, …) first")
    return exchanged(records, value)


def exchanged(records: Records, value: Value) -> Value:
    """The first two axes of a sample, exchanged."""
    return records.add(L.Permute, value, order=(0, 2, 1, *range(3, len(value.shape) + 1)))
