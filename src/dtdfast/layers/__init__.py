"""The records a network is made of: a flat list of them, wired by `inputs=`, is a directed acyclic graph.

A record is data only: arrays (kept as read-only copies) and geometry, in PyTorch's shapes and ONNX's meaning. What a
record does stands elsewhere: its shape rule and its units in plan/units/, its kernels in csrc/.
"""

from __future__ import annotations

from ..activations import ACTIVATIONS as ACTIVATIONS
from ..activations import Activation, ReLU
from ..record import INPUT, Layer
from .affine import BatchNorm, Dropout, Preparation, Scale
from .axes import Constant, Expand, Gather, Reduce, Resample
from .combining import Add, Concat, MatMul, Mul
from .given import Given
from .moves import Flatten, Pad, Permute, Reshape, Slice, Upsample
from .normalise import LRN, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, Softmax
from .pools import AvgPool, GlobalAvgPool, MaxPool, SumPool
from .weighted import Conv, ConvTranspose, Embedding, Linear

RECORDS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Linear, Conv, ConvTranspose, Embedding, ReLU, Activation, Softmax, Dropout, MaxPool, AvgPool, SumPool,
        GlobalAvgPool, BatchNorm, Scale, Preparation, LRN, Add, Mul, Concat, Flatten, Reshape, Permute, Slice, Pad,
        Upsample, Constant, Reduce, Gather, Expand, Resample, MatMul, LayerNorm, RMSNorm, GroupNorm, InstanceNorm,
        Given,
    )
}  # fmt: skip

__all__ = [
    "INPUT", "LRN", "Activation", "Add", "AvgPool", "BatchNorm", "Concat", "Constant", "Conv", "ConvTranspose",
    "Dropout", "Embedding", "Expand", "Flatten", "Gather", "Given", "GlobalAvgPool", "GroupNorm", "InstanceNorm",
    "Layer", "LayerNorm", "Linear", "MatMul", "MaxPool", "Mul", "Pad", "Permute", "Preparation", "RMSNorm", "ReLU",
    "Reduce", "Resample", "Reshape", "Scale", "Slice", "Softmax", "SumPool", "Upsample",
]  # fmt: skip
