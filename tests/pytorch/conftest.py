"""PyTorch as these tests need it: torchvision importable on a build without its compiled operators, no gradients of weights."""

from __future__ import annotations

import importlib.metadata
import re
import warnings

import torch

warnings.filterwarnings("ignore", message=".*treespec.*", category=FutureWarning)


def _declare_operators() -> None:
    """Declare the operators for which torchvision registers shape functions; without its compiled library nobody else does."""
    source = importlib.metadata.distribution("torchvision").locate_file("torchvision/_meta_registrations.py")
    for name in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"', source.read_text()))):  # type: ignore[attr-defined]
        torch.library.define(f"torchvision::{name}", "(Tensor a) -> Tensor")


try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError):
    _declare_operators()
