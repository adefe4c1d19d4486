"""Few outputs of an x that is not mostly 0, along the pixels or the inputs: the same sums, to the bit, whether pixels
have gaps or not, and as outputs among so many that vectors run along them.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from kernel_checks import agree, each, same_bits
from kernel_layers import Taps, taps_step
from kernel_steps import Kernels, Step, isa_name, lib, vector

TAPS = tuple(product((0,), (2, 1, 0, -1, -2), (2, 1, 0, -1, -2)))
KERNELS = {
    "transposed": TAPS,
    "forward": TAPS[::-1],
    "mirrored": tuple(product((0,), (1, 0, -1), (-1, 0, 1))),
    "ten rows": tuple(product((0,), range(5, -5, -1), (1, 0))),
    "no rectangle": TAPS[:-1],
}
AMONG = 17  # outputs
VECTORS = {"baseline": 16, "avx2": 32}  # bytes; 64 for the others

CASES = [(c_in, c_out) for c_in in (1, 3, 6, 15, 16, 17) for c_out in (1, 2, 3, 4, 5, 8)]


@each("c_in,c_out", CASES, 1)
def test_pixels_with_and_without_gaps(kernels: Kernels, c_in: int, c_out: int) -> None:
    results = []
    for gap in (0, 1):
        layer = Taps(
            "DENSE", kernels, np.random.default_rng(c_in), 2, c_in, c_out, count=(1, 3, 17), taps=TAPS, gap=gap
        )
        step, expected, size = taps_step(layer, "W", "M_NONE", False, 1, False)
        step.numbers["x_step"] = (1, 1, 1)
        step.run(kernels)
        agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * size)
        results.append(step.arrays["out"])
    assert same_bits(*results)


def first_outputs(layer: Taps, step: Step, n: int) -> Step:
    """The same step for the first few outputs alone; the block of packed weights that they lie in holds others."""
    arrays = {
        name: a if a is None or name not in ("out", "factor", "m", "scale") else a[:, :n]
        for name, a in step.arrays.items()
    }
    for name in step.results:
        if (array := arrays.get(name)) is not None:
            arrays[name] = layer.place(array)
    return Step(step.op, arrays, step.numbers)


@each("c_in,kernel,width", list(product((1, 2, 6), KERNELS, (17, 28, 49))), 9)
def test_one_output_is_that_among_others(kernels: Kernels, c_in: int, kernel: str, width: int) -> None:
    layer = Taps(
        "DENSE", kernels, np.random.default_rng(c_in), 2, c_in, AMONG, count=(1, 6, width), taps=KERNELS[kernel]
    )
    if c_in * layer.values.itemsize >= VECTORS.get(isa_name(kernels.isa), 64):
        return  # vectors run along the inputs
    for accumulate, multiplier in ((False, "M_NONE"), (True, "M_TIMES")):
        step, _, _ = taps_step(layer, "W", multiplier, accumulate, 2, False)
        one = first_outputs(layer, step, 1)
        for n_threads, each_step in ((1, step), (2, one)):
            each_step.run(kernels, n_threads=n_threads)
        assert same_bits(one.arrays["out"], step.arrays["out"][:, :1])


@each("c_out,dual,width", list(product((1, 3, 5, 6, 8), (0, 1), (17, 28, 32))), 7)
def test_neurons_are_those_among_others(kernels: Kernels, c_out: int, dual: int, width: int) -> None:
    rng = np.random.default_rng(c_out)
    layer = Taps("DENSE", kernels, rng, 2, 2, AMONG, count=(1, 5, width), taps=TAPS)
    for phase, activation, coefficient, stabilizer in ((1, "RELU", 1, 0), (2, "IDENTITY", -1.5, 0.1)):
        layer.phase = phase  # pixels of out without gaps, and with
        results = {name: layer.place(kernels.zeros(*layer.shape)) for name in ("out", "factor")}
        biases = {name: vector(kernels.normal(rng, AMONG)) for name in ("bias", "bias_d")}
        numbers = {
            **layer.numbers(), "dual": dual, "factor_kind": lib.DTD_F_GATE, "activation": getattr(lib,
            f"DTD_{activation}"),
            "coefficient": coefficient, "stabilizer": stabilizer,
        }  # fmt: skip
        step = Step("NEURON_DENSE", {**layer.operands(), **results, **biases}, numbers)
        few = first_outputs(layer, step, c_out)
        for each_step in (step, few):
            each_step.run(kernels)
        for name in ("out", "factor"):
            assert same_bits(few.arrays[name], step.arrays[name][:, :c_out])
