"""Keras models as layer lists."""

from .importer import from_keras

__all__ = ["from_keras"]
