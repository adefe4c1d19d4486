"""Attention, norms, softmax and gates against explicit message matrices and the equations that define them."""

from __future__ import annotations

import numpy as np
import pytest

import dtdfast as dtd
from cases import HELD_CASES

TOLERANCE = 1e-12  # as in test_oracle.py


def test_there_are_enough_cases():
    assert len(HELD_CASES) >= 400
    assert len({case.id for case in HELD_CASES}) == len(HELD_CASES)


@pytest.mark.parametrize("case", HELD_CASES, ids=lambda case: case.id)
def test_explicit(case):
    x, r_out = case.x.astype(np.float64), case.r_out.astype(np.float64)
    expected, bound = case.expected(x, r_out, TOLERANCE)
    r_in = dtd.explain(case.layers, x, r_out, **case.options("oracle"))
    assert r_in.shape == x.shape
    assert np.isfinite(r_in).all()
    assert (abs(r_in - expected) <= bound).all()
    assert np.isfinite(bound).mean() > 0.9
