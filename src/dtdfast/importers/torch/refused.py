"""What is refused of PyTorch by name, each with what would be possible instead."""

from __future__ import annotations

from typing import Any

from ..refused import ATTENTION, QUANTISED, RECURRENCE, STATISTICS
from .call import operation

BRANCH = "a branch in its code depends on the data; make the branch to be explained a module of its own"
STATE = "explain a module without changing state, such as one that holds the state to be explained as a constant"
WEIGHTS = (
    "do that once before the import, and leave it out of forward (work on a copy of the module whose forward only uses "
    "the weight)"
)
TRAINING = "it was exported in training mode; export the module after module.eval()"
SIZE_OR_SIGN = (
    "what only knows the size or the sign of a number has no rule for its relevance; use a ReLU of x and one of −x "
    "instead"
)

UNKNOWN = "this operator has no record; explain the part before or after it as a network of its own"
CHOICE = (
    "it makes a choice by the data, which has no relevance rule; write relu, clamp, maximum or max-pooling, or explain "
    "what comes before it"
)
ORDER = (
    "it orders elements by their size, and only the largest (max, max-pooling) has a rule; explain the part before it"
)
STATISTIC = (
    "a statistic of the very sample has no rule known to be sound; explain the part before or after it as a network of "
    "its own"
)

OPERATORS: dict[str, str] = {
    **dict.fromkeys(("scaled_dot_product_attention", "bilinear", "cdist", "dot", "outer", "cross"), ATTENTION),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), RECURRENCE),
    **dict.fromkeys(
        ("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "instance_norm", "rms_norm"), STATISTICS
    ),
    **dict.fromkeys(
        ("var", "var_mean", "std", "std_mean", "norm", "linalg_vector_norm", "cosine_similarity"), STATISTIC
    ),
    **dict.fromkeys(
        (
            "gt",
            "lt",
            "ge",
            "le",
            "eq",
            "ne",
            "sign",
            "argmax",
            "argmin",
            "nonzero",
            "round",
            "floor",
            "ceil",
            "bernoulli",
        ),
        CHOICE,
    ),
    **dict.fromkeys(("topk", "sort", "argsort", "median", "kthvalue", "unique"), ORDER),
    "native_dropout": TRAINING,
    **dict.fromkeys(("sign", "abs"), SIZE_OR_SIGN),
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
