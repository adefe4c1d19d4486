"""scikit-learn pipelines as layer lists."""

from .importer import from_sklearn

__all__ = ["from_sklearn"]
