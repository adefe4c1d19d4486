"""dtdfast: Deep Taylor Decomposition and the LRP family, by hand-written fused kernels over a flat list of layers."""

import importlib
from typing import TYPE_CHECKING, Any

from . import baselines, plot
from .backends import Backend, backends
from .config import build_config
from .errors import (
    BackendError,
    DomainError,
    DtdError,
    InputError,
    LayerError,
    ModelError,
    NumericsError,
    RuleError,
    RunError,
    ShapeError,
    StorageError,
    TargetError,
    WiringError,
)
from .explainer import Explainer, explain, predict
from .importers.keras import from_keras
from .importers.onnx import from_onnx
from .importers.sklearn import from_sklearn
from .importers.torch import from_torch
from .layers import (
    INPUT,
    LRN,
    Activation,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool,
    Mul,
    Pad,
    Permute,
    ReLU,
    Reshape,
    Scale,
    Slice,
    Softmax,
    SumPool,
    Upsample,
)
from .ledger import Ledger
from .presets import PRESETS
from .rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, Zero, ZPlus
from .runs import run
from .storage import load, save
from .version import __version__

if TYPE_CHECKING:
    from . import compat, diagnostics, evaluation

LAZY = ("compat", "diagnostics", "evaluation")  # subpackages that are imported when they are first named

__all__ = [
    "INPUT", "LRN", "PRESETS", "Activation", "Add", "AlphaBeta", "AvgPool", "Backend", "BackendError", "BatchNorm", "Concat", "Conv",
    "ConvTranspose", "DomainError", "Dropout", "DtdError", "Embedding", "Epsilon", "Explainer", "Flat", "Flatten", "Gamma", "GlobalAvgPool",
    "InputError", "Layer", "LayerError", "Ledger", "Linear", "MaxPool", "ModelError", "Mul", "NumericsError", "Pad", "Pass", "Permute",
    "ReLU", "Reshape", "Rule", "RuleError", "RunError", "Scale", "ShapeError", "Slice", "Softmax", "StorageError", "SumPool", "TargetError",
    "Upsample", "WSquare", "WiringError", "ZBox", "ZPlus", "Zero", "__version__", "backends", "baselines", "build_config", "compat",
    "diagnostics", "evaluation", "explain", "from_keras", "from_onnx", "from_sklearn", "from_torch", "load", "plot", "predict", "run",
    "save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
