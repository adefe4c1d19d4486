"""ONNX models as layer lists."""

from .importer import from_onnx

__all__ = ["from_onnx"]
