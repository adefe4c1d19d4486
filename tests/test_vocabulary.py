"""One vocabulary in every executor: the tables of the oracle, C and CUDA hold the keys of vocabulary.py, and what is in
no table is refused by name.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass

import numpy as np
import pytest

import dtdfast as dtd
import kernel_reference as reference
from dtdfast import vocabulary
from dtdfast.cpu import rows
from dtdfast.cuda.kernels import formulas
from dtdfast.cuda.run import contraction, operations
from dtdfast.oracle import maths
from dtdfast.rules import Convention, Share, Term
from dtdfast.vocabulary import ACTIVATIONS, INPUT_MAPS, KERNELS, WEIGHT_MAPS, X

lib = rows.lib
X_VALUES = np.linspace(-2, 2, 9)
BOX = np.full(9, -2.5), np.full(9, 3.0)


def test_every_executor_has_the_weight_maps() -> None:
    assert maths.WEIGHT_MAPS.keys() == formulas.WEIGHT_MAPS.keys() == rows.WEIGHT_MAPS.keys() == WEIGHT_MAPS.keys()
    assert sorted(rows.WEIGHT_MAPS.values()) == list(range(lib.DTD_N_WEIGHT_MAPS))
    assert {row.c for row in WEIGHT_MAPS.values()} == reference.WEIGHT_MAPS.keys()


def test_every_executor_has_the_input_maps() -> None:
    mapped = INPUT_MAPS.keys() - {X}
    assert maths.INPUT_MAPS.keys() == INPUT_MAPS.keys()
    assert formulas.INPUT_MAPS.keys() == mapped
    assert rows.INPUT_MAPS.keys() == mapped
    assert {row.c for row in INPUT_MAPS.values()} - {None} == reference.INPUT_MAPS.keys()


def test_every_executor_has_the_functions() -> None:
    assert rows.ACTIVATIONS.keys() == formulas.ACTIVATIONS.keys() == formulas.DERIVATIVES.keys() == set(KERNELS)
    assert sorted(rows.ACTIVATIONS.values()) == list(range(lib.DTD_N_ACTIVATIONS))
    assert {kind.upper() for kind in KERNELS} == reference.ACTIVATIONS.keys()


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_the_oracle_has_the_function(kind: str) -> None:
    record = dtd.Activation(kind, slopes=X_VALUES if ACTIVATIONS[kind].kernel else None)
    for function in (maths.activate, maths.derivative):
        assert function(record, X_VALUES[None]).shape == (1, 9)


def test_every_device_has_the_operations() -> None:
    """But for conversions, as CUDA has one type of numbers, and fused steps, whose parts it runs one by one."""
    names = {name.removeprefix("DTD_") for name in rows.ffi.typeof("dtd_op").relements}
    names -= {"N_OPS", "CONVERT", "SLICED"}
    assert operations.OPERATIONS.keys() | contraction.OPERATIONS == names


def test_every_launch_has_its_body() -> None:
    """A launch looks its body up when it is called; a body that is forgotten is named here."""
    named = [
        (module, node.attr)
        for node in ast.walk(ast.parse(inspect.getsource(operations)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if inspect.ismodule(module := getattr(operations, node.value.id, None))
    ]
    assert (operations.normalise, "lrn") in named
    assert not [f"{module.__name__}.{name}" for module, name in named if not hasattr(module, name)]


@pytest.mark.parametrize("gamma", [0.0, 0.25])
@pytest.mark.parametrize("name", WEIGHT_MAPS)
def test_what_is_known_of_weight_maps(name: str, gamma: float) -> None:
    """By the oracle's formulas."""
    w, row = X_VALUES, WEIGHT_MAPS[name]
    mapped = maths.WEIGHT_MAPS[name](w, gamma)
    np.testing.assert_array_equal(row.of(w, gamma), mapped)
    assert row.sign is None or (row.sign * mapped >= 0).all()
    assert row.sign is not None or (mapped.min() < 0 < mapped.max())
    some = np.abs(w)
    as_known = 0 * some if row.positive is None else maths.WEIGHT_MAPS[row.positive](some, gamma)
    np.testing.assert_array_equal(maths.WEIGHT_MAPS[name](some, gamma), as_known)
    mirrored = maths.WEIGHT_MAPS[row.mirror](w, gamma)
    assert any(np.array_equal(maths.WEIGHT_MAPS[name](-w, gamma), sign * mirrored) for sign in (1, -1))
    np.testing.assert_array_equal(maths.WEIGHT_MAPS[name](4 * w, gamma), 4.0**row.power * mapped)  # powers of 2: exact
    assert row.exceeds == bool((mapped >= w).all()) or gamma == 0 or name == "w2"


@pytest.mark.parametrize("name", INPUT_MAPS)
def test_what_is_known_of_input_maps(name: str) -> None:
    row, some = INPUT_MAPS[name], np.abs(X_VALUES)
    mapped = maths.INPUT_MAPS[name](X_VALUES, BOX)
    assert row.sign is None or (row.sign * mapped >= 0).all()
    as_known = 0 * some if row.positive is None else maths.INPUT_MAPS[row.positive](some, BOX)
    np.testing.assert_array_equal(maths.INPUT_MAPS[name](some, BOX), as_known)
    if row.product is not None:
        multiplied = reference.MULTIPLIERS[f"M_{row.product.upper()}"](X_VALUES)
        np.testing.assert_array_equal(X_VALUES * multiplied, mapped)
    if row.times is not None and row.bound is None:
        multiplied = reference.MULTIPLIERS[f"M_{row.times.upper().replace(' ', '_')}"](X_VALUES)
        np.testing.assert_array_equal(multiplied, mapped)


# ------------------------------------------------------------------------------------------------- what nobody knows


@dataclass(frozen=True)
class Stranger(dtd.Rule):
    """A rule of words that no executor has."""

    x: str = "x"
    w: str = "w"

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(self.x, self.w),)),)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize(
    ("rule", "name"), [(Stranger(x="x^3"), "x^3"), (Stranger(x="|x|"), "|x|"), (Stranger(w="w^3"), "w^3")]
)
def test_a_map_that_nobody_knows_is_refused(rule: dtd.Rule, name: str, backend: str) -> None:
    layers = [dtd.Linear(np.eye(3)), dtd.ReLU(), dtd.Linear(np.eye(3))]
    with pytest.raises(dtd.RuleError, match=re.escape(repr(name))):
        dtd.explain(layers, np.ones((1, 3), np.float32), rules=rule, backend=backend)


def test_an_activation_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its record; and one that an executor has forgotten, by that executor."""
    with pytest.raises(dtd.LayerError, match="swoosh"):
        dtd.Activation("swoosh")
    monkeypatch.setitem(vocabulary.ACTIVATIONS, "swoosh", vocabulary.ACTIVATIONS["tanh"])
    layers = [dtd.Linear(np.eye(3)), dtd.Activation("swoosh")]
    for backend, error in (("oracle", NotImplementedError), ("cpu", dtd.BackendError)):
        with pytest.raises(error, match="swoosh"):
            dtd.predict(layers, np.ones((1, 3), np.float32), backend=backend)
