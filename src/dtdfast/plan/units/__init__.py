"""The kinds of units, one file each, saying all that the plan knows of them; and the record that each is made from.

A unit is made of records after folding and fusing. A *neuron* is everything that makes up one layer of neurons: its
taps (a convolution, or several operands of an add), bias and activation. The other units move or pass relevance.
"""

from __future__ import annotations

from ... import layers as L
from ...errors import LayerError
from ..parts import Part as Part
from ..shapes import Shape
from ..tensors import Box as Box
from ..tensors import Floats as Floats
from ..tensors import Region as Region
from ..tensors import Tensor as Tensor
from ..tensors import whole as whole
from . import (
    add,
    affine,
    constant,
    copies,
    elementwise,
    embedding,
    gating,
    lrn,
    matmul,
    move,
    norm,
    pools,
    reduction,
    resample,
    reshape,
    softmax,
    weighted,
    winner,
)
from .affine import Affine
from .base import Balance as Balance
from .base import Recipe as Recipe
from .base import Unit as Unit
from .constant import Fixed, Supplied
from .copies import Copy
from .elementwise import Elementwise
from .embedding import Words
from .gating import Gating
from .held import HeldNeuron
from .lrn import Normalise
from .matmul import Attention, Product
from .move import Move
from .neuron import Neuron
from .norm import Norm
from .reshape import Reshaping
from .softmax import Probabilities
from .total import Total
from .winner import Winner

KINDS: tuple[type[Unit], ...] = (
    Neuron,
    Norm,
    Attention,
    Product,
    Winner,
    Elementwise,
    Affine,
    Normalise,
    Probabilities,
    Total,
    Gating,
    Move,
    Copy,
    Reshaping,
    Fixed,
    Supplied,
    Words,
)

RECIPES: dict[type[L.Layer], Recipe] = {
    **weighted.RECORDS,
    **pools.RECORDS,
    **reduction.RECORDS,
    **resample.RECORDS,
    **add.RECORDS,
    **winner.RECORDS,
    **elementwise.RECORDS,
    **affine.RECORDS,
    **lrn.RECORDS,
    **softmax.RECORDS,
    **norm.RECORDS,
    **matmul.RECORDS,
    **gating.RECORDS,
    **move.RECORDS,
    **copies.RECORDS,
    **reshape.RECORDS,
    **constant.RECORDS,
    **embedding.RECORDS,
}

if missing := {*L.RECORDS.values()} - RECIPES.keys():
    raise NotImplementedError(f"no unit is made of {', '.join(sorted(record.__name__ for record in missing))}")


def output_shape(record: L.Layer, *shapes: Shape) -> Shape:
    """Shape of one sample after the record; raises ShapeError where it does not fit."""
    recipe = RECIPES.get(type(record))
    if recipe is None:
        raise LayerError(f"{type(record).__name__} is not a record of dtdfast")
    return recipe.shape(record, *shapes)


def aligned(shapes: list[Shape], constant: list[bool]) -> list[Shape]:
    """Shapes of the operands of an Add or Mul, those of constants with as many axes as the others' (in front, of size
    1).
    """
    rank = max(len(s) for s in shapes)
    return [(1,) * (rank - len(s)) + s if c else s for s, c in zip(shapes, constant, strict=True)]


def shares(record: L.Layer) -> bool:
    """Whether it is a layer of neurons, which shares relevance by a rule."""
    return RECIPES[type(record)].shares(record)


__all__ = [
    "KINDS", "RECIPES", "Affine", "Attention", "Balance", "Box", "Copy", "Elementwise", "Fixed", "Floats", "Gating",
    "HeldNeuron", "Move", "Neuron", "Norm", "Normalise", "Part", "Probabilities", "Product", "Recipe", "Region",
    "Reshaping", "Supplied", "Tensor", "Total", "Unit", "Winner", "Words", "aligned", "output_shape", "shares", "whole",
]  # fmt: skip
