"""Few outputs of an x that is not mostly 0, along the pixels or the inputs: pixels with and without gaps have the same sums, to the bit."""

from __future__ import annotations

from itertools import product

import numpy as np

from kernel_checks import agree, each, same_bits
from kernel_layers import Taps
from kernel_steps import Kernels
from test_kernels import taps_step

TAPS = tuple(product((0,), (2, 1, 0, -1, -2), (2, 1, 0, -1, -2)))


CASES = [(c_in, c_out) for c_in in (1, 3, 6, 15, 16, 17) for c_out in (1, 2, 3, 4, 5, 8)]


@each("c_in,c_out", CASES, 1)
def test_pixels_with_and_without_gaps(kernels: Kernels, c_in: int, c_out: int) -> None:
    results = []
    for gap in (0, 1):
        layer = Taps("DENSE", kernels, np.random.default_rng(c_in), 2, c_in, c_out, count=(1, 3, 17), taps=TAPS, gap=gap)
        step, expected, size = taps_step(layer, "W", "M_NONE", False, 1, False)
        step.numbers["x_step"] = (1, 1, 1)
        step.run(kernels)
        agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * size)
        results.append(step.arrays["out"])
    assert same_bits(*results)
