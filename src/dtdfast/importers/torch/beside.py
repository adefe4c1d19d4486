"""What works on tensors whose first axis holds samples × windows (or frames): in convolutions, pools and resizings the
windows become one more spatial axis, along which the kernel has size 1; in norms they are among the channels.
"""

from __future__ import annotations

from typing import Any

from ... import layers as L
from .. import algebra
from ..records import Refused, Value
from .call import Call, Records, spread

KINDS = (
    "conv{}d conv_transpose{}d max_pool{}d avg_pool{}d adaptive_avg_pool{}d _adaptive_avg_pool{}d adaptive_max_pool{}d "
    "upsample_nearest{}d _upsample_nearest_exact{}d upsample_linear{}d upsample_bilinear{}d upsample_bicubic{}d"
)
SPACES = {name: n for n in (1, 2) for name in KINDS.format(*[n] * KINDS.count("{")).split()}
"""The operators, by their spatial axes."""


def widened(call: Call) -> dict[str, Any]:
    """The arguments of a call with one more spatial axis in front of its own."""
    n, arguments = SPACES[call.name], dict(call.arguments)
    if call.name.startswith("conv"):
        arguments["weight"] = call.weight.unsqueeze(2)
    for key, one in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("padding", 0), ("output_padding", 0)):
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


NORMS = ("group_norm", "native_group_norm", "instance_norm")


def among_channels(records: Records, value: Value, call: Call) -> dict[str, Any]:
    """The arguments of a norm of samples (windows, channels, …) with the windows among the channels: every window has
    groups of its own.
    """
    n, *rest = value.shape
    arguments = {k: v.repeat(n) if hasattr(v, "repeat") else v for k, v in call.arguments.items()}
    groups = {k: n * call.arguments[k] for k in ("num_groups", "group") if k in arguments}
    return arguments | groups | {"input": algebra.reshaped(records.add, value, (n * rest[0], *rest[1:]))}
