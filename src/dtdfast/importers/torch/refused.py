"""What is refused of PyTorch by name, each with what would be possible instead."""

from __future__ import annotations

from typing import Any

from ..refused import CHOICE, ORDER, PAIRS, QUANTISED, RECURRENCE, SIZE_OR_SIGN, STATISTIC, WORDS
from .call import operation

BRANCH = "a branch in its code depends on the data; make the branch to be explained a module of its own"
STATE = "explain a module without changing state, such as one that holds the state to be explained as a constant"
WEIGHTS = (
    "do that once before the import, and leave it out of forward (work on a copy of the module whose forward only uses "
    "the weight)"
)
TRAINING = "it was exported in training mode; export the module after module.eval()"
FUSED = (
    "its program was exported with PyTorch's fused kernel; export it after "
    "torch.backends.mha.set_fastpath_enabled(False)"
)
UNKNOWN = "this operator has no record; explain the part before or after it as a network of its own"

# fmt: off
CHOICES = (
    "gt", "lt", "ge", "le", "eq", "ne", "sgn", "argmax", "argmin", "nonzero", "round", "floor", "ceil", "bernoulli",
    "floor_divide", "remainder", "fmod",
)
OPERATORS: dict[str, str] = {
    **dict.fromkeys(("bilinear", "cdist", "dot", "outer", "cross"), PAIRS),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), RECURRENCE),
    **dict.fromkeys(("cosine_similarity", "logsumexp", "logcumsumexp", "prod", "cumprod", "renorm"), STATISTIC),
    **dict.fromkeys(CHOICES, CHOICE),
    **dict.fromkeys(("topk", "sort", "argsort", "median", "kthvalue", "unique"), ORDER),
    **dict.fromkeys(("_transformer_encoder_layer_fwd", "_native_multi_head_attention"), FUSED),
    "native_dropout": f"{TRAINING}, and call F.dropout with training=self.training",
    "sign": SIZE_OR_SIGN,
}
# fmt: on
PARTS: dict[str, str] = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"), RECURRENCE),
}


def advice(node: Any, reason: str) -> str:
    """Why a node is refused: by the part of the module that it belongs to, by its operator, else the reason found."""
    kinds = [str(kind).rstrip("'>").rsplit(".", 1)[-1] for _, kind in (node.meta.get("nn_module_stack") or {}).values()]
    known = next((kind for kind in kinds if kind in PARTS), None)
    if known is not None:
        return f"it is part of {known}: {PARTS[known]}"
    if _of_words(node):
        return WORDS
    if "quantized" in getattr(node.target, "namespace", ""):
        return QUANTISED
    return OPERATORS.get(operation(node) or "", reason)


def _of_words(node: Any) -> bool:
    """Whether it compares or counts words."""
    read = [n.meta["val"] for n in node.all_input_nodes]
    return operation(node) in CHOICES and any(hasattr(v, "dtype") and not v.dtype.is_floating_point for v in read)


def quantised(module: Any) -> str | None:
    """The name of a part that computes with integers."""
    for name, part in module.named_modules():
        if ".quantized" in type(part).__module__:
            return name or type(part).__name__
    return None
