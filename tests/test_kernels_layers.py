"""The layers that CUDA's kernels are tested on, by the C kernels: a neuron's sums and gate, and the transposed
product's input maps.
"""

from __future__ import annotations

import numpy as np

import kernel_reference as ref
from cases.layers import LAYERS
from kernel_checks import agree, each
from kernel_layers import named_layer, taps_step
from kernel_steps import Kernels, Step, lib

each_layer = each("name", [name for name, layer in LAYERS.items() if not layer.get("transposed")], 1)


@each_layer
def test_neuron(kernels: Kernels, name: str, rng: np.random.Generator) -> None:
    """Out = relu(y), terms = z⁺, factor = the gate out / z⁺, from one pass over x and w."""
    layer = named_layer(kernels, rng, **LAYERS[name])
    out, terms, factor = (layer.place(kernels.zeros(*layer.shape)) for _ in range(3))
    numbers = {
        **layer.numbers(),
        "dual": 1,
        "factor_kind": lib.DTD_F_GATE,
        "activation": lib.DTD_RELU,
        "coefficient": 1.0,
    }
    Step("NEURON_DENSE", {**layer.operands(), "out": out, "terms": terms, "factor": factor}, numbers).run(kernels)
    y, size = layer.sums()
    agree(out, np.maximum(y, 0), (layer.n_terms + 4) * kernels.u * size)
    z, size = layer.sums("W_POSITIVE")
    agree(terms, z, (layer.n_terms + 3) * kernels.u * size)
    gate = ref.quotient(out.astype(kernels.wide), terms.astype(kernels.wide))
    agree(factor, gate, 6 * kernels.u * np.abs(gate))


@each_layer
def test_taps(kernels: Kernels, name: str, rng: np.random.Generator) -> None:
    """Out += m · Σ x w⁺ for two targets at once."""
    step, expected, size = taps_step(
        layer := named_layer(kernels, rng, **LAYERS[name]), "W_POSITIVE", "M_TIMES", True, 2, False
    )
    step.run(kernels)
    agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * size)
