"""Wrong values for every argument of the functions over explanations: a result, or an error of dtdfast, and no other.

So a wrong argument is named by the function that got it, and not by NumPy, matplotlib or a line in the middle of it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import dtdfast as dtd
from dtdfast import concepts, diagnostics, evaluation, interactions, parameters, plot
from global_state import unchanged

mpl.use("agg")

RNG = np.random.default_rng(0)
DENSE = [
    dtd.Linear(RNG.standard_normal((6, 4)), np.full(6, -0.01)), dtd.ReLU(), dtd.Linear(RNG.standard_normal((3, 6))),
]  # fmt: skip
IMAGE = [
    dtd.Conv(RNG.standard_normal((3, 1, 3, 3)), padding=1), dtd.ReLU(), dtd.Flatten(),
    dtd.Linear(RNG.standard_normal((3, 48))),
]  # fmt: skip
ROWS, PICTURES = RNG.random((3, 4)), RNG.random((3, 1, 4, 4))
SEEN = PICTURES[:, 0]
WRONG = (
    None, -1, 2**70, 1.5, float("nan"), "x", b"x", object(), [], {}, {1: 2}, [None], ["a"], [[1], [1, 2]], object, 1j,
    np.array(3), np.zeros((0, 4)), np.ma.masked_all((3, 4)), np.array(["a"]), np.zeros((2, 2, 2, 2, 2)),
)  # fmt: skip


@cache
def axes(rows: int, columns: int) -> Any:
    return Figure().subplots(rows, columns, squeeze=False)


def axis() -> Any:
    return axes(1, 1)[0, 0]


@cache
def curves() -> evaluation.Curves:
    return evaluation.region_perturbation(IMAGE, PICTURES, PICTURES, size=2, steps=2, repeats=1)


CALLS: dict[Callable[..., Any], Callable[[], dict[str, Any]]] = {
    plot.bars: lambda: {"relevance": ROWS[0], "ax": axis(), "names": list("abcd"), "top": 3},
    plot.flow: lambda: {"ledger": dtd.Explainer(IMAGE).ledger(PICTURES), "ax": axis()},
    plot.curves: lambda: {"found": curves(), "ax": axis(), "methods": ["relevance"]},
    plot.heatmap: lambda: {
        "relevance": PICTURES[0], "ax": axis(), "percentile": 99.0, "smooth": 0.0, "limit": 1.0, "cmap": "RdBu_r",
    },
    plot.overlay: lambda: {
        "relevance": PICTURES[0], "picture": SEEN[0], "ax": axis(), "percentile": 99.0, "smooth": 0.0, "cmap": "RdBu_r",
    },
    plot.grid: lambda: {
        "maps": {"a": PICTURES[:1]}, "axes": axes(2, 1), "pictures": SEEN[:1], "labels": ["a"], "probabilities": [0.1],
        "scale": "each", "percentile": 99.0, "smooth": 0.0, "cmap": "RdBu_r",
    },
    plot.samples: lambda: {
        "found": concepts.top_samples(IMAGE, PICTURES, position=1, k=1), "pictures": SEEN, "axes": axes(2, 1),
        "channels": [0, 2],
    },
    evaluation.region_perturbation: lambda: {
        "layers": IMAGE, "x": PICTURES, "relevance": PICTURES, "target": 1, "size": 2, "steps": 2, "repeats": 1,
        "operator": "blur", "probability": True, "seed": 0,
    },
    evaluation.pixel_flipping: lambda: {
        "layers": IMAGE, "x": PICTURES, "relevance": PICTURES, "target": 1, "steps": 2,
    },
    evaluation.compare: lambda: {
        "layers": IMAGE, "x": PICTURES, "target": 1, "methods": ["dtd"], "other": 2, "size": 2, "steps": 2,
        "repeats": 1, "operator": "blur", "seed": 0,
    },
    diagnostics.class_sensitivity: lambda: {
        "layers": DENSE, "x": ROWS, "target": 1, "other": 2, "attribution": dtd.explain, "seed": 0,
    },
    diagnostics.parameter_randomization: lambda: {
        "layers": DENSE, "x": ROWS, "target": 1, "order": "cascading", "attribution": dtd.explain, "seed": 0,
    },
    diagnostics.cosine_convergence: lambda: {"layers": DENSE, "x": ROWS, "start": 1, "seed": 0},
    diagnostics.mixing_bound: lambda: {"layers": DENSE, "x": ROWS, "seed": 0},
    diagnostics.gradient_equivalence: lambda: {"layers": DENSE, "x": ROWS, "target": 1},
    diagnostics.conservation: lambda: {"layers": DENSE, "x": ROWS, "target": 1},
    diagnostics.root_audit: lambda: {"layers": DENSE, "x": ROWS, "target": 1, "layer": 0, "n_roots": 3, "seed": 0},
    diagnostics.root_points: lambda: {"layers": DENSE, "x": ROWS[:1], "neurons": [0, 1], "layer": 0},
    diagnostics.region_reach: lambda: {"layers": DENSE, "x": ROWS, "direction": ROWS},
    diagnostics.same_region: lambda: {"layers": DENSE, "x": ROWS, "other": ROWS},
    diagnostics.top_neurons: lambda: {
        "layers": IMAGE, "x": PICTURES, "target": 1, "position": 1, "k": 2,
    },
    diagnostics.relevance_flow: lambda: {
        "layers": IMAGE, "x": PICTURES, "target": 1, "positions": [1], "axis": 1,
    },
    concepts.conditional: lambda: {"layers": IMAGE, "x": PICTURES, "target": 1, "conditions": {1: [0]}, "axis": 1},
    concepts.channel_relevance: lambda: {"layers": IMAGE, "x": PICTURES, "target": 1, "position": 1, "axis": 1},
    concepts.top_channels: lambda: {"relevance": ROWS, "k": 2},
    concepts.top_samples: lambda: {
        "layers": IMAGE, "x": PICTURES, "target": 1, "position": 1, "k": 2, "by": "relevance", "axis": 1,
    },
    concepts.stored_samples: lambda: {"path": "nowhere.zarr", "k": 2},
    parameters.relevance: lambda: {
        "explainer": dtd.Explainer(IMAGE), "x": PICTURES, "target": 1, "positions": {0, 3}, "per": "head",
        "heads": {0: 3},
    },
    parameters.prune: lambda: {"layers": DENSE, "scores": {0: np.ones(6)}, "fraction": 0.5},
    interactions.bilrp: lambda: {
        "layers": DENSE, "x": ROWS, "other": ROWS, "regions": np.arange(4), "other_given": None,
    },
    interactions.top_pairs: lambda: {
        "layers": DENSE, "x": ROWS, "other": ROWS, "k": 2, "regions": np.arange(4), "other_given": None,
    },
    interactions.co_relevance: lambda: {
        "layers": DENSE, "x": ROWS, "target": 1, "position": 1, "regions": np.arange(4),
    },
    interactions.patches: lambda: {"shape": (1, 4, 4), "size": 2},
    interactions.taylor_terms: lambda: {"layers": DENSE, "x": ROWS, "target": 1, "root": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore")
def test_wrong_arguments_are_named(function: Callable[..., Any]) -> None:
    valid = CALLS[function]()
    named = {n for n, p in inspect.signature(function).parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert set(valid) == named
    with contextlib.suppress(*((dtd.DtdError,) if function is concepts.stored_samples else ())):  # no run is there
        function(**valid)  # the first call may start threads, such as Zarr's
    with unchanged():
        try_wrong(function, valid)


def try_wrong(function: Callable[..., Any], valid: dict[str, Any]) -> None:
    for key in valid:
        for wrong in (*WRONG, (letter for letter in "ab")):
            if key == "attribution" and wrong is object:  # what a caller's own function raises is the caller's
                continue
            if key == "repeats" and isinstance(wrong, int) and wrong > 0:  # which would only take long
                continue
            try:
                function(**{**valid, key: wrong})
            except dtd.DtdError:
                pass
            except Exception as error:
                pytest.fail(f"{function.__name__}({key}={wrong!r:.60}): {type(error).__name__}: {error}")


@pytest.mark.parametrize("module", [plot, evaluation, diagnostics, concepts, interactions, parameters])
def test_every_function_is_tried(module: Any) -> None:
    functions = {f for n in module.__all__ if inspect.isfunction(f := getattr(module, n))}
    assert functions - {plot.words} <= set(CALLS)


@pytest.mark.parametrize(
    "function",
    [f for f in CALLS if "layers" in inspect.signature(f).parameters and f is not parameters.prune],  # returns a list
    ids=lambda f: f.__name__,
)
def test_models_files_and_tables_are_taken_as_explain_takes_them(function: Callable[..., Any], tmp_path: Path) -> None:
    valid = CALLS[function]()
    dtd.save(valid["layers"], tmp_path / "network.safetensors")
    other = {key: pd.DataFrame(v) if np.ndim(v) == 2 else v for key, v in valid.items()}
    assert str(function(**{**other, "layers": tmp_path / "network.safetensors"})) == str(function(**valid))


@pytest.mark.parametrize(
    "key", ["data", "target", "preparation", "resume", "strict", "dtype", "sum_channels", "ledger"]
)
def test_wrong_arguments_of_a_run(key: str, tmp_path: Path) -> None:
    for number, wrong in enumerate(WRONG):
        with contextlib.suppress(dtd.DtdError):
            dtd.run(DENSE, **{"data": ROWS, "out": tmp_path / f"{number}.zarr", key: wrong})


def test_paths_that_no_file_can_have(tmp_path: Path) -> None:
    page = dtd.report(DENSE, ROWS, tests=())
    for path in (None, 3, b"x", [], "", "a\0b", "a\ud800"):
        for call in (
            lambda path=path: dtd.run(DENSE, ROWS, path),
            lambda path=path: dtd.save(DENSE, path),
            lambda path=path: page.save(path),
            lambda path=path: page.save(tmp_path / "page.html", path or b"x"),
            lambda path=path: dtd.load(path),
            lambda path=path: dtd.from_onnx(path),
        ):
            with pytest.raises(dtd.DtdError, match=r"path|got a"):
                call()


def test_integers_become_floats_in_the_way_that_suits_them() -> None:
    for x, hint in (
        (np.ones((2, 4), np.uint8), "x / 255"),
        (pd.DataFrame(np.ones((2, 4), int)), r"x\.astype\(float\)"),
    ):
        with pytest.raises(dtd.InputError, match=f"convert to float, with {hint}"):
            dtd.explain(DENSE, x)
    with pytest.raises(dtd.InputError, match="integers are for an Embedding only"):
        dtd.baselines.input_x_gradient(DENSE, np.ones((2, 4), int))
