"""What ATen's fused attention becomes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import layers as L
from ..algebra import of_sample
from ..attention import attention
from ..functions import Function
from ..records import Refused, Value
from .call import Call, Handler, Records, each, first
from .refused import TRAINING


def _attention(records: Records, call: Call) -> Value:
    if call.get("dropout_p"):
        raise Refused(f"it draws a dropout of {call.dropout_p}: {TRAINING}")
    rank = max((len(x.shape) for x in call.values()), default=0)
    q, k, v = (_operand(records, call, name, rank) for name in ("query", "key", "value"))
    mask = call.get("attn_mask", call.get("attn_bias"))
    if mask is not None and not isinstance(mask, Value):
        mask = _of_sample(records, mask, len(q.shape))
    return attention(records.add, q, k, v, mask=mask, causal=bool(call.get("is_causal")), scale=call.get("scale"))


def _operand(records: Records, call: Call, name: str, rank: int) -> Value:
    """A computed operand, or one that is the same for all samples, as a learned query is."""
    value = getattr(call, name)
    if isinstance(value, (Value, Function)):
        return call.x(name)
    return records.add(
        L.Constant, value=of_sample(np.asarray(records.array(value, name), np.float64), rank, records.n_batch)
    )


def _of_sample(records: Records, mask: Any, rank: int) -> Any:
    """A constant mask as one sample meets it; boolean ones stay so."""
    array = of_sample(np.asarray(records.array(mask, "mask"), np.float64), rank, records.n_batch)
    return array != 0 if str(mask.dtype) == "torch.bool" else array


HANDLERS: dict[str, Handler] = {
    "scaled_dot_product_attention": _attention,
    **each(
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_attention_math",
        first(_attention),
    ),
}
