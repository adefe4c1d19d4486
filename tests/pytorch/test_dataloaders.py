"""PyTorch's DataLoader, whose workers explain: processes of every kind, after PyTorch and dtdfast have used threads."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dtdfast as dtd
import support
from processes import Maps


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", [None, *multiprocessing.get_all_start_methods()])
def test_workers_have_the_bits_of_a_call_alone(method: str | None, rng: np.random.Generator) -> None:
    conv = dtd.Conv(support.normal(rng, 16, 3, 3, 3), padding=1)
    layers = [conv, dtd.ReLU(), dtd.Flatten(), dtd.Linear(support.normal(rng, 5, 16 * 16 * 16))]
    x = support.normal(rng, 6, 3, 16, 16)
    expected = dtd.explain(layers, x, backend="cpu", n_threads=1)
    explainer = dtd.Explainer(layers, backend="cpu", n_threads=2)
    torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(conv.weight.copy()))
    np.testing.assert_array_equal(explainer.explain(x), expected)
    workers = {"num_workers": 0} if method is None else {"num_workers": 2, "multiprocessing_context": method}
    loader = DataLoader(Maps(explainer, x), batch_size=2, timeout=0 if method is None else 300, **workers)
    np.testing.assert_array_equal(np.concatenate([batch.numpy() for batch in loader]), expected)
