"""Layer lists by hand: a builder that knows every entry's shape, and the network that comes out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import dtdfast as dtd

Bias = Literal["random", "nonpositive", "none"]
Shape = tuple[int, ...]
ARRAYS = ("weight", "bias", "scale", "shift")  # a record's trained parameters; a BatchNorm's statistics are not counted


@dataclass(frozen=True, eq=False)
class Net:
    """A layer list with what is needed to call it.

    Parameters
    ----------
    name : str
    layers : list of Layer
    input_shape : tuple of int
        Without the batch axis.
    macs : int
        Forward multiply-adds of convolutions and linear layers for one sample.
    box : (float, float)
        A valid `domain=`: `sample` draws from this interval; an Embedding's vectors lie in it.
    n_words : int, optional
        The input is integers below this.
    target : int or tuple of int, optional
        What to explain where None (the largest output) is not enough: one position of a spatial output.
    """

    name: str
    layers: list[dtd.Layer]
    input_shape: Shape
    output_shape: Shape
    macs: int
    box: tuple[float, float]
    n_words: int | None
    target: int | tuple[int, ...] | None

    def sample(self, n_batch: int, seed: int = 0, box: tuple[float, float] | None = None) -> NDArray[Any]:
        """A random batch: float32 within `box` (the network's own where None), or int64 words."""
        rng = np.random.default_rng(seed)
        shape = (n_batch, *self.input_shape)
        if self.n_words is not None:
            return rng.integers(self.n_words, size=shape, dtype=np.int64)
        low, high = self.box if box is None else box
        return low + (high - low) * rng.random(shape, dtype=np.float32)

    def perturbed(self, scale: float, seed: int) -> Net:
        """The same with every weight and bias times 1 + scale·N(0, 1), in float64."""
        rng = np.random.default_rng(seed)
        layers = []
        for layer in self.layers:
            arrays = {
                key: np.asarray(a, np.float64)
                for key in ("weight", "bias")
                if (a := getattr(layer, key, None)) is not None
            }
            layers.append(
                replace(layer, **{key: a * (1 + scale * rng.standard_normal(a.shape)) for key, a in arrays.items()})
            )
        return replace(self, layers=layers)

    @property
    def parameters(self) -> int:
        """Trained parameters, counted from the records."""
        return sum(
            np.size(a) for layer in self.layers for key in ARRAYS if (a := getattr(layer, key, None)) is not None
        )


class Builder:
    """Appends records to a list; every method returns the new entry's position.

    `at=None` reads the entry before. Weights are He-initialised, so that activations stay of order 1 through any depth.

    Parameters
    ----------
    input_shape : sequence of int
        Without the batch axis.
    seed : int or None
        None leaves all weights at zero, where only shapes are wanted.
    bias : "random", "nonpositive" or "none"
        What linear layers and (folded) BatchNorms add.
    box : (float, float)
        The interval of the input's values.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        seed: int | None = 0,
        bias: Bias = "random",
        box: tuple[float, float] = (-2.0, 2.5),
    ):
        self.layers: list[dtd.Layer] = []
        self._input_shape = tuple(input_shape)
        self._shapes: list[Shape] = []
        self._macs = 0
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._bias = bias
        self._box = box

    def net(self, name: str, n_words: int | None = None, target: int | tuple[int, ...] | None = None) -> Net:
        return Net(name, self.layers, self._input_shape, self._shapes[-1], self._macs, self._box, n_words, target)

    @property
    def last(self) -> int:
        """The newest entry's position, `dtd.INPUT` before the first."""
        return len(self.layers) - 1 if self.layers else dtd.INPUT

    def shape(self, at: int | None = None) -> Shape:
        """An entry's output shape, without the batch axis."""
        at = self.last if at is None else at
        return self._input_shape if at == dtd.INPUT else self._shapes[at]

    def put(self, record: dtd.Layer, shape: Sequence[int]) -> int:
        self.layers.append(record)
        self._shapes.append(tuple(shape))
        return self.last

    # -------------------------------------------------------------------------------------------------------- weights

    def normal(self, shape: Sequence[int], std: float) -> NDArray[np.float32]:
        if self._rng is None:
            paper = np.zeros(shape, np.float32)
            # of both signs as far as a plan looks: from weights that are all ≥ 0 it follows that outputs are
            paper.flat[0] = -1
            return paper
        values = self._rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(std)
        return values

    def uniform(self, n: int, low: float, high: float) -> NDArray[np.float32]:
        if self._rng is None:
            return np.full(n, high, np.float32)
        return self._rng.uniform(low, high, n).astype(np.float32)

    def shift(self, n: int) -> NDArray[np.float32] | None:
        """What a layer adds: random signs, none above zero, or None."""
        if self._bias == "none":
            return None
        values = self.normal((n,), 0.1)
        return -np.abs(values) if self._bias == "nonpositive" else values

    # --------------------------------------------------------------------------------------------------------- linear

    def linear(self, n_out: int, at: int | None = None, bias: bool = True) -> int:
        (n_in,) = self.shape(at)
        self._macs += n_in * n_out
        weight = self.normal((n_out, n_in), (2 / n_in) ** 0.5)
        return self.put(dtd.Linear(weight, self.shift(n_out) if bias else None, inputs=at), (n_out,))

    def conv(
        self, c_out: int, kernel: int | Sequence[int], at: int | None = None, *, stride: int = 1, padding: int = 0,
        dilation: int = 1,
        groups: int = 1, bias: bool = True,
    ) -> int:  # fmt: skip
        c_in, *size = self.shape(at)
        taps = _each(kernel, len(size))
        fan_in = c_in // groups * prod(taps)
        weight = self.normal((c_out, c_in // groups, *taps), (2 / fan_in) ** 0.5)
        out = [_windows(s, k, stride, padding, dilation) for s, k in zip(size, taps, strict=True)]
        self._macs += weight.size * prod(out)
        record = dtd.Conv(
            weight,
            self.shift(c_out) if bias else None,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            inputs=at,
        )
        return self.put(record, (c_out, *out))

    def conv_transpose(
        self, c_out: int, kernel: int, at: int | None = None, *, stride: int = 1, padding: int = 0
    ) -> int:
        c_in, *size = self.shape(at)
        taps = _each(kernel, len(size))
        weight = self.normal((c_in, c_out, *taps), (2 * stride ** len(size) / (c_in * prod(taps))) ** 0.5)
        self._macs += weight.size * prod(size)
        out = [(s - 1) * stride + kernel - 2 * padding for s in size]
        return self.put(
            dtd.ConvTranspose(weight, self.shift(c_out), stride=stride, padding=padding, inputs=at), (c_out, *out)
        )

    def embedding(self, n_words: int, n_features: int) -> int:
        return self.put(dtd.Embedding(self.normal((n_words, n_features), 1.0)), (*self.shape(), n_features))

    def batch_norm(self, at: int | None = None, gain: float = 1.0) -> int:
        """Random statistics; the weight's signs too, unless the shift is to stay at or below zero."""
        shape = self.shape(at)
        c = shape[0]
        weight = gain * self.uniform(c, 0.7, 1.3)
        mean = self.normal((c,), 0.1)
        if self._bias == "random":
            weight *= np.where(self.normal((c,), 1.0) < -1, -1, 1).astype(np.float32)
        else:
            mean = np.abs(mean) if self._bias == "nonpositive" else np.zeros_like(mean)
        return self.put(dtd.BatchNorm(mean, self.uniform(c, 0.5, 1.5), weight, self.shift(c), inputs=at), shape)

    # --------------------------------------------------------------------------------------------------- element-wise

    def relu(self, at: int | None = None) -> int:
        return self.put(dtd.ReLU(inputs=at), self.shape(at))

    def activation(self, kind: str, at: int | None = None) -> int:
        return self.put(dtd.Activation(kind, inputs=at), self.shape(at))

    def lrn(self, size: int, at: int | None = None) -> int:
        return self.put(dtd.LRN(size, inputs=at), self.shape(at))

    def dropout(self) -> int:
        return self.put(dtd.Dropout(), self.shape())

    def add(self, *at: int) -> int:
        return self.put(dtd.Add(inputs=at), self.shape(at[0]))

    def gate(self, signal: int, gate: int) -> int:
        return self.put(dtd.Mul(inputs=(signal, gate)), self.shape(signal))

    # ---------------------------------------------------------------------------------------------------------- pools

    def max_pool(
        self,
        kernel: int | Sequence[int],
        at: int | None = None,
        *,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
    ) -> int:
        c, *size = self.shape(at)
        taps = _each(kernel, len(size))
        out = [_windows(s, k, stride or k, padding, ceil_mode=ceil_mode) for s, k in zip(size, taps, strict=True)]
        return self.put(dtd.MaxPool(taps, stride=stride, padding=padding, ceil_mode=ceil_mode, inputs=at), (c, *out))

    def avg_pool(self, kernel: int, at: int | None = None) -> int:
        c, *size = self.shape(at)
        return self.put(dtd.AvgPool(_each(kernel, len(size)), inputs=at), (c, *(s // kernel for s in size)))

    def global_avg_pool(self, at: int | None = None) -> int:
        c, *size = self.shape(at)
        return self.put(dtd.GlobalAvgPool(inputs=at), (c, *(1 for _ in size)))

    def upsample(self, factor: int, at: int | None = None) -> int:
        c, *size = self.shape(at)
        return self.put(dtd.Upsample(factor, inputs=at), (c, *(s * factor for s in size)))

    # ------------------------------------------------------------------------------------------------------- movement

    def concat(self, *at: int) -> int:
        _, *size = self.shape(at[0])
        return self.put(dtd.Concat(axis=1, inputs=at), (sum(self.shape(i)[0] for i in at), *size))

    def flatten(self, at: int | None = None) -> int:
        return self.put(dtd.Flatten(inputs=at), (prod(self.shape(at)),))

    def reshape(self, *shape: int) -> int:
        return self.put(dtd.Reshape(shape), shape)

    def permute(self, *order: int) -> int:
        shape = self.shape()
        return self.put(dtd.Permute(order), [shape[i - 1] for i in order[1:]])

    def slice_channels(self, start: int, stop: int, at: int) -> int:
        _, *size = self.shape(at)
        return self.put(dtd.Slice(1, start, stop, inputs=at), (stop - start, *size))


def _each(value: int | Sequence[int], n: int) -> Shape:
    return (value,) * n if isinstance(value, int) else tuple(value)


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> int:
    """How many windows fit; with ceil_mode a last one may overhang, unless it starts beyond the input and its left
    padding.
    """
    steps = (size + 2 * padding - dilation * (kernel - 1) - 1) / stride
    n = (ceil(steps) if ceil_mode else floor(steps)) + 1
    return n - 1 if ceil_mode and (n - 1) * stride >= size + padding else n


def channels(divisor: int, multiple: int = 1) -> Any:
    """A function that divides a published width, down to a multiple."""
    return lambda width: max(width // divisor // multiple, 1) * multiple


def readers(layers: Sequence[dtd.Layer]) -> list[list[int]]:
    """For every entry, the positions that read it."""
    read_by: list[list[int]] = [[] for _ in layers]
    for position, operands in enumerate(wiring(layers)):
        for i in operands:
            if i != dtd.INPUT:
                read_by[i].append(position)
    return read_by


def wiring(layers: Sequence[dtd.Layer]) -> Iterator[Shape]:
    """For every entry, the positions that it reads, `None` spelt out."""
    for position, layer in enumerate(layers):
        before = (position - 1,) if layer.arity != 0 else ()
        yield before if layer.inputs is None else tuple(layer.inputs)
