"""explain and predict of a model or a file instead of a list, and results for DataFrames (PyTorch, Keras:
pytorch/test_imported_on_the_way.py).
"""

import os
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from numpy.random import Generator
from sklearn.linear_model import LogisticRegression

import dtdfast as dtd
import onnx_models
from dtdfast import baselines, diagnostics, models
from support import normal


def line(path: Path, factor: float) -> onnx.ModelProto:
    """A file with y = factor · x."""
    body = f"w = Constant<value = float[2,2] {{{factor},0,0,{factor}}}>() y = MatMul(x, w)"
    model = onnx_models.model(body, "", "float[N,2] x")
    onnx.save(model, path)
    return model


def test_a_file_is_imported_on_the_way_and_again_when_it_changes(tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", np.array([[1.0, 2.0]], np.float32)
    model = line(path, 2)
    np.testing.assert_array_equal(dtd.predict(path, x), [[2, 4]])
    np.testing.assert_array_equal(dtd.predict(str(path), x), [[2, 4]])
    np.testing.assert_array_equal(dtd.explain(model, x, 1), [[0, 4]])
    assert models.layers_of(path, x) is models.layers_of(path, x), "kept while the file stays the same"
    line(path, 3)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(dtd.predict(path, x), [[3, 6]])


def test_a_file_beside_the_model_changes(tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", np.eye(2, dtype=np.float32)
    model = onnx_models.model("y = MatMul(x, w)", "float[2,2] w", "float[N,2] x")
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    np.testing.assert_array_equal(dtd.predict(path, x), weight)
    assert models.layers_of(path, x) is models.layers_of(path, x)
    stat = (tmp_path / "weights").stat()
    (tmp_path / "weights").write_bytes((2 * weight).tobytes())
    os.utime(tmp_path / "weights", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    np.testing.assert_array_equal(dtd.predict(path, x), 2 * weight)
    (tmp_path / "weights").unlink()
    with pytest.raises(dtd.ModelError, match="weights"):
        dtd.predict(path, x)


def test_a_saved_network(tmp_path: Path, rng: Generator) -> None:
    layers, x = [dtd.Linear(normal(rng, 3, 4), normal(rng, 3))], normal(rng, 2, 4)
    dtd.save(layers, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(dtd.explain(tmp_path / "net.safetensors", x), dtd.explain(layers, x))


def test_an_estimator_is_read_again_after_a_fit(rng: Generator) -> None:
    x, y = normal(rng, 40, 3), np.arange(40) % 3
    estimator = LogisticRegression().fit(x, y)
    before = dtd.explain(estimator, x)
    np.testing.assert_array_equal(before, dtd.explain(dtd.from_sklearn(estimator), x))
    assert models.layers_of(estimator, x) is models.layers_of(estimator, x)
    estimator.fit(x[::-1], y)
    np.testing.assert_array_equal(dtd.explain(estimator, x), dtd.explain(dtd.from_sklearn(estimator), x))
    dtd.clear_cache()
    assert not models._kept


def test_an_estimator_that_cannot_be_pickled(rng: Generator) -> None:
    x, y = normal(rng, 40, 3), np.arange(40) % 3
    estimator = LogisticRegression().fit(x, y)
    estimator.note = lambda: None
    np.testing.assert_array_equal(dtd.predict(estimator, x), dtd.predict(dtd.from_sklearn(estimator), x))


def test_columns_in_another_order(rng: Generator) -> None:
    frame = pd.DataFrame(normal(rng, 40, 3), columns=list("abc"))
    estimator = LogisticRegression().fit(frame, np.arange(40) % 3)
    np.testing.assert_array_equal(dtd.predict(estimator, frame), dtd.predict(estimator, frame.to_numpy()))
    for columns, message in ((list("acb"), "x has 'c' as column 1"), (list("ab"), "x has 2 columns")):
        with pytest.raises(dtd.InputError, match=f"{message}, but the estimator was fitted on 3 columns .* a, b, c"):
            dtd.explain(estimator, frame[columns])
        with pytest.raises(dtd.InputError, match=message):
            dtd.report(estimator, frame[columns], tests=())


@pytest.mark.parametrize("x", [None, 3.0, "abc", [[1.0], [2.0, 3.0]], np.ones((1, 2), object), np.ones(2)])
def test_x_that_is_no_batch(tmp_path: Path, x: object) -> None:
    line(tmp_path / "model.onnx", 2)
    with pytest.raises(dtd.InputError, match=r"x has shape|x is text|x is None, expected|x cannot be read"):
        dtd.predict(tmp_path / "model.onnx", x)


def test_refused(tmp_path: Path, rng: Generator) -> None:
    x = normal(rng, 1, 2)
    for model, message in (
        (tmp_path / "none.onnx", "cannot be read: No such file"),
        ("null\0.onnx", "cannot be read: .*embedded null"),
        (tmp_path / "model.txt", r"ends in \.onnx, \.pt2, \.safetensors"),
    ):
        with pytest.raises(dtd.ModelError, match=message):
            dtd.explain(model, x)
    with pytest.raises(dtd.LayerError, match="layers is a int, expected a list of records, which from_torch"):
        dtd.explain(3, x)
    with pytest.raises(dtd.InputError, match="mask: a model that is imported on the way takes x alone; import it"):
        dtd.explain(tmp_path / "none.onnx", x, mask=x)
    with pytest.raises(dtd.InputError, match="did you mean rules="):
        dtd.explain(tmp_path / "none.onnx", x, rule="dtd")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rules": dtd.ZPlus}, dtd.RuleError),
        ({"backend": ["cpu"]}, dtd.BackendError),
        ({"domain": ([1, [2]], 3)}, dtd.DomainError),
    ],
)
def test_options_that_are_none(rng: Generator, options: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        dtd.explain([dtd.Linear(normal(rng, 2, 3))], normal(rng, 1, 3), **options)


# ---------------------------------------------------------------------------------------------------------- DataFrames


def test_a_data_frame_keeps_its_names(rng: Generator) -> None:
    layers = [dtd.Linear(normal(rng, 5, 3)), dtd.ReLU(), dtd.Linear(normal(rng, 3, 5))]
    frame = pd.DataFrame(normal(rng, 4, 3), index=list("abcd"), columns=["age", "height", "weight"])
    plain = frame.to_numpy()
    relevance, outputs = dtd.explain(layers, frame, return_outputs=True)
    assert list(relevance.index) == list("abcd")
    assert list(relevance.columns) == ["age", "height", "weight"]
    np.testing.assert_array_equal(relevance, dtd.explain(layers, plain))
    assert isinstance(outputs, np.ndarray), "as many outputs as columns are no columns"
    assert isinstance(dtd.explain(layers, frame, np.zeros((4, 2), int)), np.ndarray), "two maps are no table"
    assert isinstance(dtd.explain(layers, frame, stop=1), np.ndarray)
    assert isinstance(dtd.explain([*layers, dtd.Linear(np.eye(3))], frame, stop=2), np.ndarray)
    for made in (baselines.gradient, baselines.input_x_gradient, baselines.sensitivity):
        found = made(layers, frame)
        assert list(found.columns) == ["age", "height", "weight"]
        np.testing.assert_array_equal(found, made(layers, plain))
    np.testing.assert_array_equal(
        baselines.simple_taylor(layers, frame, 0 * frame), baselines.simple_taylor(layers, plain, 0 * plain)
    )


@pytest.mark.parametrize(
    "diagnose", [diagnostics.class_sensitivity, diagnostics.gradient_equivalence, diagnostics.parameter_randomization]
)
def test_diagnostics_take_data_frames(rng: Generator, diagnose: object) -> None:
    layers = [dtd.Linear(normal(rng, 5, 3), normal(rng, 5)), dtd.ReLU(), dtd.Linear(normal(rng, 3, 5))]
    plain = normal(rng, 4, 3)
    assert str(diagnose(layers, pd.DataFrame(plain), backend="cpu")) == str(diagnose(layers, plain, backend="cpu"))


def test_baselines_refuse_masked_values(rng: Generator) -> None:
    layers, x = [dtd.Linear(normal(rng, 5, 3))], normal(rng, 4, 3)
    hidden = np.ma.array(x, mask=x > 0)
    for call in (
        lambda: baselines.input_x_gradient(layers, hidden),
        lambda: baselines.simple_taylor(layers, hidden, x),
        lambda: baselines.simple_taylor(layers, x, hidden),
    ):
        with pytest.raises(dtd.InputError, match="is a masked array"):
            call()
