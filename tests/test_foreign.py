"""Arrays and tables of libraries that are not installed here, by classes that look like theirs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dtdfast as dtd
from dtdfast.runs.sources import open_source

RNG = np.random.default_rng(0)
LAYERS = [dtd.Linear(RNG.standard_normal((4, 6))), dtd.ReLU(), dtd.Linear(RNG.standard_normal((3, 4)))]
X = RNG.random((5, 6), np.float32)
EXPECTED = dtd.explain(LAYERS, X)


class OverDLPack:
    """An array that nothing but DLPack can read."""

    def __init__(self, values: Any, where: int = 1) -> None:
        self.values, self.where = values, where

    def __dlpack__(self, **options: Any) -> Any:
        if self.where != 1:
            raise BufferError("it is not in main memory")
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.where, 0


@pytest.mark.parametrize("writeable", [True, False])
def test_dlpack(writeable: bool) -> None:
    x = X.copy()
    x.flags.writeable = writeable
    if not writeable and np.lib.NumpyVersion(np.__version__) < "2.1.0":  # it hands out no read-only arrays by DLPack
        with pytest.raises(dtd.InputError, match=r"x is a OverDLPack whose memory NumPy cannot read .*readonly"):
            dtd.explain(LAYERS, OverDLPack(x))
        return
    found = dtd.explain(LAYERS, OverDLPack(x))
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, EXPECTED)
    target = OverDLPack(np.array([0, 1, 2, 0, 1]))
    np.testing.assert_array_equal(dtd.explain(LAYERS, x, target), dtd.explain(LAYERS, x, target.values))


def test_dlpack_of_what_numpy_cannot_read() -> None:
    with pytest.raises(dtd.InputError, match=r"x is a OverDLPack whose memory NumPy cannot read by DLPack: .*float32"):
        dtd.explain(LAYERS, OverDLPack(X, where=2))  # on a GPU


class JaxArray:
    def __init__(self, values: Any) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.values, dtype)

    def devices(self) -> set[str]:
        return {"cpu:0"}


class Tracer(JaxArray):
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("a tracer has no values")


@pytest.fixture
def jax(monkeypatch: pytest.MonkeyPatch) -> Any:
    def device_put(values: Any, device: Any) -> JaxArray:
        assert device == "cpu:0"
        return JaxArray(values)

    found = SimpleNamespace(Array=JaxArray, core=SimpleNamespace(Tracer=Tracer), device_put=device_put)
    monkeypatch.setitem(sys.modules, "jax", found)
    return found


def test_jax_in_and_out(jax: Any) -> None:
    relevance, outputs = dtd.explain(LAYERS, JaxArray(X), JaxArray(np.full(5, 2)), return_outputs=True)
    assert type(relevance) is type(outputs) is JaxArray
    np.testing.assert_array_equal(relevance.values, dtd.explain(LAYERS, X, 2))
    assert type(dtd.predict(LAYERS, JaxArray(X))) is JaxArray


def test_jax_refused(jax: Any) -> None:
    with pytest.raises(dtd.InputError, match=r"traced by JAX \(jit, grad, vmap\)"):
        dtd.explain(LAYERS, Tracer(X))
    with pytest.raises(dtd.InputError, match="out is an array of JAX, which cannot be written into"):
        dtd.explain(LAYERS, JaxArray(X), out=JaxArray(X))


class Kind:
    def __init__(self, name: str) -> None:
        self.name = name

    def is_numeric(self) -> bool:
        return self.name != "String"

    def __str__(self) -> str:
        return self.name


class PolarsFrame:
    def __init__(self, values: Any, schema: list[str]) -> None:
        self.values, self.columns, self.height = values, schema, len(values)
        self.schema = {name: Kind("String" if name == "word" else "Float32") for name in schema}

    def to_numpy(self) -> Any:
        return self.values


class LazyFrame:
    pass


def test_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(DataFrame=PolarsFrame, LazyFrame=LazyFrame, Boolean=Kind("Boolean"))
    monkeypatch.setitem(sys.modules, "polars", fake)
    found = dtd.explain(LAYERS, PolarsFrame(X, list("abcdef")))
    assert type(found) is PolarsFrame
    assert found.columns == list("abcdef")
    np.testing.assert_array_equal(found.values, EXPECTED)
    assert type(dtd.predict(LAYERS, PolarsFrame(X, list("abcdef")))) is np.ndarray
    with pytest.raises(dtd.InputError, match=r"columns that hold no numbers: 'word' \(String\)"):
        dtd.explain(LAYERS, PolarsFrame(X, ["word", *"bcdef"]))
    with pytest.raises(dtd.InputError, match=r"x.collect\(\)"):
        dtd.explain(LAYERS, LazyFrame())


def test_tables_of_pandas_with_words() -> None:
    table = pd.DataFrame(X, columns=list("abcdef")).assign(c="red")
    with pytest.raises(dtd.InputError, match=r"columns that hold no numbers: 'c' \(.*\); leave them out"):
        dtd.explain(LAYERS, table)


def test_tables_of_pandas_that_numpy_makes_objects_of() -> None:
    """Columns that may hold NA, and truth values beside numbers; the labels stay."""
    table = pd.DataFrame(X, columns=list("abcdef"))
    nullable = table.convert_dtypes()
    assert all(isinstance(t, pd.Float32Dtype) for t in nullable.dtypes)
    found = dtd.explain(LAYERS, nullable)
    assert list(found.columns) == list("abcdef")
    np.testing.assert_array_equal(found.to_numpy(), EXPECTED)
    mixed, plain = table.assign(b=table["b"] > 0.5), table.assign(b=(table["b"] > 0.5).astype("f4"))
    np.testing.assert_array_equal(dtd.explain(LAYERS, mixed).to_numpy(), dtd.explain(LAYERS, plain).to_numpy())
    (page,) = dtd.report(LAYERS, nullable[:1], tests=()).data["samples"]
    assert [of["name"] for of in page["inputs"]] == list("abcdef")
    np.testing.assert_array_equal(open_source(nullable).location.held, X)
    nullable.iloc[1, 2] = pd.NA
    with pytest.raises(dtd.InputError, match=r"NaN or infinity, first at \(1, 2\)"):
        dtd.explain(LAYERS, nullable)
    words = [dtd.Embedding(np.ones((3, 2))), dtd.Flatten(), dtd.Linear(np.ones((2, 4)))]
    assert dtd.explain(words, pd.DataFrame([[0, 1], [2, 1]], dtype="Int64")).shape == (2, 2)
