"""from_torch of random programs: what is read predicts as they do, and its LRP-0 is gradient × input, in batches of
other sizes.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import dtdfast as dtd
from programs import Program
from support import LONG

LIMITS = "its operand has the batch|it repeats samples|axes, at most|bring (it|that) to the front"
"""Words of refusals: of what is not read where the batch is elsewhere or within another axis, and of too many axes."""


def test_random_programs() -> None:
    refused = 0
    seeds = range(3000 if LONG else 12)
    for seed in seeds:
        program, generator = Program(seed), torch.Generator().manual_seed(seed)
        example, x = (
            torch.randn((n, *program.sample), generator=generator, dtype=torch.float64) for n in (1 + seed % 3, 4)
        )
        try:
            layers = dtd.from_torch(program, example)
        except dtd.ModelError as error:
            if not re.search(LIMITS, str(error)):
                pytest.fail(f"seed {seed}, {program!r}: {error}")
            refused += 1
            continue
        y = program(x.requires_grad_())
        start = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        (y * start).sum().backward()
        found = dtd.explain(layers, x.detach().numpy(), (y * start).detach().numpy(), rules="lrp-0", backend="oracle")
        truth = [y.detach(), (x.grad * x).detach()] if x.grad is not None else [y.detach()]
        ours = [dtd.predict(layers, x.detach().numpy(), backend="oracle"), found]
        for a, b in zip(ours, truth, strict=False):
            atol = 1e-8 * (1 + float(b.abs().max()))  # u = 1e-16; terms of y cancel to 1e-8 of their size at most
            np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=atol, err_msg=f"seed {seed}, {program!r}")
    assert refused <= len(seeds) // 4
