"""The command line `dtdfast`."""

from .commands import main

__all__ = ["main"]
