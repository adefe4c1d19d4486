"""Optional packages, imported when they are needed and not before."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import BackendError


def require(module: str, extra: str) -> Any:
    """Import a module of an extra, or say which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"this needs {module.split('.')[0]}: pip install 'dtdfast[{extra}]' ({error})") from None
