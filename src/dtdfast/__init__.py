"""dtdfast: Deep Taylor Decomposition and the LRP family, by hand-written fused kernels over a flat list of layers.

Where to begin: `explain(model, x)` says which inputs an output comes from, and `predict` gives the outputs, for a list
of records or a model of PyTorch, Keras, scikit-learn or ONNX, which `from_torch`, `from_keras`, `from_sklearn` and
`from_onnx` import. `Explainer` keeps a network for many calls, `report` makes a page with tests, `run` explains a data
set, `plot` draws, and `diagnostics` and `evaluation` measure what a map is worth.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import threads as _threads  # noqa: F401 - as it reads OMP_NUM_THREADS
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

if TYPE_CHECKING:
    from . import baselines, compat, concepts, diagnostics, evaluation, interactions, layers, parameters, plot, rules
    from .cache import clear_cache
    from .calls import explain, predict
    from .config import build_config
    from .contrast import Contrast
    from .explainer import Explainer
    from .importers.keras.importer import from_keras
    from .importers.onnx.importer import from_onnx
    from .importers.sklearn.importer import from_sklearn
    from .importers.torch.importer import from_torch
    from .layers import *  # noqa: F403
    from .ledger.ledger import Ledger
    from .listing import summary
    from .presets import PRESETS
    from .reports.report import report
    from .rules import *  # noqa: F403
    from .runs.run import run
    from .storage import load, save
    from .version import __version__

    __all__ = [
        "PRESETS", "Backend", "BackendError", "Contrast", "DomainError", "DtdError", "Explainer", "InputError",
        "LayerError", "Ledger", "MemoryBudgetError", "ModelError", "NumericsError", "RuleError", "RunError",
        "ShapeError", "StorageError", "TargetError", "WiringError", "__version__", "backends", "baselines",
        "build_config", "clear_cache", "compat", "concepts", "diagnostics", "evaluation", "explain", "from_keras",
        "from_onnx", "from_sklearn", "from_torch", "interactions", "load", "parameters", "plot", "predict", "report",
        "run", "save", "summary",
    ]  # fmt: skip
    __all__ += layers.__all__
    __all__ += rules.__all__

MODULES = (
    "baselines", "compat", "concepts", "diagnostics", "evaluation", "interactions", "layers", "parameters", "plot",
    "rules",
)  # fmt: skip
LISTS = ("layers", "rules")
"""Modules whose names are public here too: records and rules are listed where they are made."""
HOMES = {
    "PRESETS": "presets",
    "Contrast": "contrast",
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
    "report": "reports.report",
    "run": "runs.run",
    "save": "storage",
    "summary": "listing",
}
"""Where the other names are. All are imported when they are first used, so that a script pays for what it uses."""
EAGER = (
    "Backend", "BackendError", "DomainError", "DtdError", "InputError", "LayerError", "MemoryBudgetError",
    "ModelError", "NumericsError", "RuleError", "RunError", "ShapeError", "StorageError", "TargetError",
    "WiringError", "backends",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in HOMES:
        value = globals()[name] = getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
        return value
    if not name.startswith("_") or name == "__all__":
        lists = [importlib.import_module(f".{module}", __name__) for module in LISTS]
        if name == "__all__":
            public = [*EAGER, *HOMES, *MODULES, *(entry for found in lists for entry in found.__all__)]
            return sorted(set(public) - set(LISTS))
        for found in lists:
            if name in found.__all__:
                value = globals()[name] = getattr(found, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
