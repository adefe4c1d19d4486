"""What the peers are given, as their users would: BatchNorms folded into the convolutions before them, Dropouts left
out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import dtdfast as dtd
from nets import Net, readers, wiring


def folded(net: Net) -> Net:
    """The same function without BatchNorms and Dropouts."""
    read_by = readers(net.layers)
    layers: list[dtd.Layer] = []
    moved = {dtd.INPUT: dtd.INPUT}  # old position → new
    for position, (layer, operands) in enumerate(zip(net.layers, wiring(net.layers), strict=True)):
        source = moved[operands[0]]
        if isinstance(layer, dtd.BatchNorm):
            conv = layers[source]
            if not isinstance(conv, dtd.Conv) or read_by[operands[0]] != [position]:
                raise NotImplementedError(f"entry {position}: the BatchNorm does not follow a convolution of its own")
            layers[source] = _fold(conv, layer)
            moved[position] = source
        elif isinstance(layer, dtd.Dropout):
            moved[position] = source
        else:
            moved[position] = len(layers)
            layers.append(replace(layer, inputs=[moved[i] for i in operands]))
    return replace(net, layers=layers)


def _fold(conv: dtd.Conv, norm: dtd.BatchNorm) -> dtd.Conv:
    """Into w' = w·γ/√(v + eps), b' = (b - μ)·γ/√(v + eps) + β, in float64."""
    scale = np.float64(1.0 if norm.weight is None else norm.weight) / np.sqrt(np.float64(norm.variance) + norm.eps)
    shift = 0.0 if norm.bias is None else np.float64(norm.bias)
    bias = 0.0 if conv.bias is None else np.float64(conv.bias)
    weight = conv.weight * scale.reshape(-1, *(1,) * (conv.weight.ndim - 1))
    return replace(conv, weight=weight.astype(np.float32), bias=((bias - norm.mean) * scale + shift).astype(np.float32))
