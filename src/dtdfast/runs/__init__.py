"""Data sets: `dtdfast.run`, resumable, in this process or on Dask's workers."""

from .run import Run, run

__all__ = ["Run", "run"]
