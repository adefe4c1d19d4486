"""Optional packages: imported when they are first needed, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import BackendError


def require(module: str, extra: str, purpose: str) -> Any:
    """Import an optional module, or say which extra of dtdfast brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"{purpose} needs {module.partition('.')[0]} ({error}): pip install 'dtdfast[{extra}]'") from None
