"""Whole plans on the host as a device: every operation but the contractions runs its own kernel, and the maps equal the oracle's."""

from __future__ import annotations

import numpy as np
import pytest

import dtdfast as dtd
from cases import CASES

UNIT = 2.0**-24


@pytest.mark.parametrize("case", CASES[::7], ids=lambda case: case.id)
def test_cases(case, explainer):
    x, r_out = case.x, case.r_out
    _, bound = case.expected(x, r_out, case.tolerance(UNIT))
    expected = dtd.explain(case.layers, x, r_out, **case.options("oracle"))
    options = case.options("cuda")
    del options["backend"]
    r_in = explainer(case.layers, **options).explain(x, r_out)
    assert r_in.dtype == np.float32
    assert np.isfinite(r_in).all()
    assert (abs(r_in - expected) <= bound).all()
