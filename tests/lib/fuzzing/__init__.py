"""Fuzzing: what may be read from strangers, mutations of it (`mutations`), and what no case may do (`watch`).
tests/fuzz.py is the command.

A reading ends in a right answer or in a DtdError.
"""

from __future__ import annotations

import importlib

from .target import Target

TARGETS = {"onnx": "networks", "steps": "steps"} | dict.fromkeys(
    ("safetensors", "npy", "zarr", "hdf5", "images", "manifest"), "files"
)
"""Modules of the targets, which need the packages that read such files."""


def target(name: str) -> Target:
    found: Target = importlib.import_module(f"{__name__}.{TARGETS[name]}").TARGETS[name]
    return found
