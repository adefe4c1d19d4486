"""Keras layers and operations that are refused by name, each with what would be possible instead."""

from ..refused import ATTENTION, CHOICE, ORDER, RECURRENCE, SIZE_OR_SIGN, STATISTIC, STATISTICS

_PREPARES = "it prepares data; apply it before the network, and import what follows"


def _operations(names: str, reason: str) -> dict[str, str]:
    return {f"ops.{name}": reason for name in names.split()}


REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), RECURRENCE
    ),
    "AdditiveAttention": ATTENTION,
    **dict.fromkeys(
        ("TextVectorization", "StringLookup", "IntegerLookup", "Discretization", "CategoryEncoding", "Hashing"),
        _PREPARES,
    ),
    "Lambda": "Python code has no record; write it with Keras's layers",
    "TimeDistributed": "use the layer on all steps at once: Dense works along the last axis",
    "Masking": "masks are not followed; cut the samples to their length",
    "ops.Sign": SIZE_OR_SIGN,
    **_operations("Greater GreaterEqual Less LessEqual Equal NotEqual Argmax Argmin Nonzero Round Floor Ceil", CHOICE),
    **_operations("TopK Sort Argsort Argpartition Median Quantile Percentile", ORDER),
    **_operations("Var Std Norm Logsumexp Prod Moments", STATISTIC),
    **_operations("Normalize LayerNorm RMSNormalization", STATISTICS),
}
