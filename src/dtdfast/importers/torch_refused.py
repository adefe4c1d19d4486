"""What is refused of PyTorch by name, each with what would be possible instead."""

from __future__ import annotations

from typing import Any

from .torch_call import operation

ATTENTION = (
    "attention multiplies what is computed by what is computed, and no rule for that is known to be sound; "
    "explain the part before or after it as a module of its own"
)
RECURRENCE = "recurrence has no record; use convolutions over time, or explain what follows it as a module of its own"
STATISTICS = (
    "it divides by statistics of the very sample, and no rule for that is known to be sound; "
    "train with BatchNorm, which folds exactly, or explain the part after it as a module of its own"
)
CONTROL_FLOW = "control flow has no record; wrap the branch to be explained in a module of its own"
BRANCH = "a branch in its code depends on the data; wrap the branch to be explained in a module of its own"
QUANTISED = "it is quantised; import the float module that it was made from"
STATE = "explain a module without changing state, such as one that holds the state to be explained as a constant"
DROPOUT = "it is a Dropout in training mode; export the module after module.eval()"

OPERATORS: dict[str, str] = {
    **dict.fromkeys(("scaled_dot_product_attention", "bmm", "baddbmm", "einsum"), ATTENTION),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), RECURRENCE),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), STATISTICS),
    "native_dropout": DROPOUT,
}
PARTS: dict[str, str] = {
    "MultiheadAttention": ATTENTION,
    **dict.fromkeys(("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"), RECURRENCE),
}


def advice(node: Any, reason: str) -> str:
    """Why a node is refused: by the part of the module that it belongs to, by its operator, else the reason found."""
    kinds = [str(kind).rstrip("'>").rsplit(".", 1)[-1] for _, kind in (node.meta.get("nn_module_stack") or {}).values()]
    known = next((kind for kind in kinds if kind in PARTS), None)
    if known is not None:
        return f"it is part of {known}: {PARTS[known]}"
    if "quantized" in getattr(node.target, "namespace", ""):
        return QUANTISED
    return OPERATORS.get(operation(node) or "", reason)


def quantised(module: Any) -> str | None:
    """The name of a part that computes with integers."""
    for name, part in module.named_modules():
        if ".quantized" in type(part).__module__:
            return name or type(part).__name__
    return None
