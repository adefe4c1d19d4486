"""Few outputs of an x that is mostly 0: what is not 0 is added to the outputs that it reaches, with the bits of every
other way.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from kernel_checks import agree, each, same_bits
from kernel_layers import Taps, taps_step
from kernel_steps import Kernels

# inputs, outputs, (d, h, w) of the outputs, taps along each axis
SHAPES = [
    (16, 6, (1, 14, 14), (1, 5, 5)),
    (64, 8, (1, 5, 9), (1, 3, 3)),
    (17, 5, (1, 1, 33), (1, 1, 7)),
    (3, 7, (3, 4, 5), (2, 3, 4)),
    (33, 8, (1, 7, 7), (1, 3, 5)),
]
each_shape = each("case", list(enumerate(SHAPES)), 2)


def layer_of(kernels: Kernels, case: Any) -> Taps:
    number, (c_in, c_out, count, kernel) = case
    # of a transposed product: the last tap first
    taps = tuple(product(*(tuple(k // 2 - i for i in range(k)) for k in kernel)))
    layer = Taps(
        "DENSE", kernels, np.random.default_rng(40 + number), 4, c_in, c_out, count=count, taps=taps, gap=number % 2
    )
    layer.sieve(0.9)
    return layer


def step_of(
    layer: Taps, weight_map: str = "W_POSITIVE", multiplier: str = "M_NONE", accumulate: bool = False
) -> tuple[Any, Any, Any]:
    step, expected, size = taps_step(layer, weight_map, multiplier, accumulate, 2, False)
    step.numbers["x_step"] = (1, 1, 1)
    return step, expected, size


@each_shape
def test_values(kernels: Kernels, case: Any) -> None:
    for weight_map, multiplier, accumulate in (
        ("W", "M_TIMES", False),
        ("W_POSITIVE", "M_NONE", False),
        ("W_GAMMA_POSITIVE", "M_NONE", True),
    ):
        layer = layer_of(kernels, case)
        step, expected, size = step_of(layer, weight_map, multiplier, accumulate)
        step.run(kernels)
        agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * size)


@each_shape
def test_bits_of_a_sample_among_dense_ones(kernels: Kernels, case: Any) -> None:
    layer = layer_of(kernels, case)
    values = layer.values.copy()
    step, _, _ = step_of(layer)
    step.run(kernels)
    values[2:] = kernels.normal(layer.rng, *values[2:].shape)
    layer.refill(values)
    among, _, _ = step_of(layer)
    among.arrays["scale"] = step.arrays["scale"]
    for n_threads in (1, 2):
        among.run(kernels, n_threads=n_threads)
        assert same_bits(among.arrays["out"][:2], step.arrays["out"][:2])


@each_shape
def test_what_is_no_number_stays_where_it_belongs(kernels: Kernels, case: Any) -> None:
    layer = layer_of(kernels, case)
    values = layer.values.copy()
    values.reshape(-1)[:: values.size // 7] = np.nan
    layer.refill(values)
    step, expected, size = step_of(layer)
    step.run(kernels)
    agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * np.nan_to_num(size))
