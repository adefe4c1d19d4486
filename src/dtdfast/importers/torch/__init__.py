"""PyTorch modules as layer lists."""

from .importer import from_torch

__all__ = ["from_torch"]
