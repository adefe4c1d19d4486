"""dtdfast: Deep Taylor Decomposition and the LRP family, by hand-written fused kernels over a flat list of layers."""

import importlib
from typing import TYPE_CHECKING, Any

from . import layers, rules
from .backends import Backend, backends
from .errors import (
    BackendError,
    DomainError,
    DtdError,
    InputError,
    LayerError,
    MemoryBudgetError,
    ModelError,
    NumericsError,
    RuleError,
    RunError,
    ShapeError,
    StorageError,
    TargetError,
    WiringError,
)
from .layers import *  # noqa: F403  records are public where they are listed
from .presets import PRESETS
from .rules import *  # noqa: F403

if TYPE_CHECKING:
    from . import baselines, compat, diagnostics, evaluation, plot
    from .cache import clear_cache
    from .calls import explain, predict
    from .config import build_config
    from .explainer import Explainer
    from .importers.keras.importer import from_keras
    from .importers.onnx.importer import from_onnx
    from .importers.sklearn.importer import from_sklearn
    from .importers.torch.importer import from_torch
    from .ledger.ledger import Ledger
    from .runs.run import run
    from .storage import load, save
    from .version import __version__

__all__ = [
    "PRESETS", "Backend", "BackendError", "DomainError", "DtdError", "Explainer", "InputError", "LayerError",
    "Ledger", "MemoryBudgetError", "ModelError", "NumericsError", "RuleError", "RunError", "ShapeError",
    "StorageError", "TargetError", "WiringError", "__version__", "backends", "baselines", "build_config",
    "clear_cache", "compat", "diagnostics", "evaluation", "explain", "from_keras", "from_onnx", "from_sklearn",
    "from_torch", "load", "plot", "predict", "run", "save",
]  # fmt: skip
__all__ += layers.__all__
__all__ += rules.__all__


MODULES = ("baselines", "compat", "diagnostics", "evaluation", "plot")
HOMES = {
    "Explainer": "explainer",
    "Ledger": "ledger.ledger",
    "__version__": "version",
    "build_config": "config",
    "clear_cache": "cache",
    "explain": "calls",
    "from_keras": "importers.keras.importer",
    "from_onnx": "importers.onnx.importer",
    "from_sklearn": "importers.sklearn.importer",
    "from_torch": "importers.torch.importer",
    "load": "storage",
    "predict": "calls",
    "run": "runs.run",
    "save": "storage",
}
"""Where names are that are imported when they are first used, so that a script pays for what it uses: beside records
and rules, all."""


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in HOMES:
        value = globals()[name] = getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
