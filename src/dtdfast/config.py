"""How this copy of dtdfast was built, for bug reports."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numpy as np

from .backends import backends
from .version import __version__


def build_config() -> dict[str, Any]:
    """Describe the installation.

    Returns
    -------
    dict
        Versions, the compiler, OpenMP, the instruction sets that were compiled and the one that is used, the number of
        threads, and GPUs with what compiles for them. Without the compiled kernels it holds versions only.
    """
    config: dict[str, Any] = {
        "dtdfast": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    known = backends()
    if known["cpu"].usable:
        from .cpu.executor import kernel_config

        config.update(kernel_config())
    config["cuda"] = known["cuda"].reason
    for package in ("numba", "numba-cuda"):
        try:
            config[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            config[package] = None
    return config
