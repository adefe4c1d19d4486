"""A plugin of pytest that runs tests/cuda on a GPU on paper, to learn which kernels they ask for: gpu_pack.py.

Results are what memory held, so whatever compares them passes: NumPy's assertions do nothing, a test's own are only
evaluated, as they may ask for more, and Python runs without those of helpers (-O).
"""

from __future__ import annotations

import ast
import pickle
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from _pytest.assertion.rewrite import AssertionRewriter

import emulation
from paper import PaperDevice, on_paper

STACK, DEVICE = pytest.StashKey[ExitStack](), pytest.StashKey[PaperDevice]()

AssertionRewriter.visit_Assert = lambda self, node: [ast.copy_location(ast.Expr(node.test), node)]  # type: ignore[method-assign, assignment]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernels", type=Path, help="file for kernels, and the shared memory of their blocks")


def pytest_collection_finish(session: pytest.Session) -> None:
    stack = session.config.stash[STACK] = ExitStack()
    device = session.config.stash[DEVICE] = stack.enter_context(on_paper())
    emulation.run = lambda launch, memory: device.prepare([launch])
    for name in [name for name in dir(np.testing) if name.startswith("assert_")]:
        setattr(np.testing, name, lambda *args, **options: None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[STACK].close()
    session.config.option.kernels.write_bytes(pickle.dumps(session.config.stash[DEVICE].shared))
