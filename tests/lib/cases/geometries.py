"""Geometries: awkward shapes on purpose, weights that float32 holds exactly.

A `Geometry` is a small network that is one layer of neurons (a tap layer, an Add with its operands, or one with
something folded into it), built twice from the same arrays: as records of the package and as an explicit matrix.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import dtdfast as dtd
import explicit


class Network(NamedTuple):
    layers: list
    taps: explicit.Taps
    copies: int = 1  # how many times the flattened input stands among the columns of taps.matrix


@dataclass(frozen=True)
class Geometry:
    id: str
    x_shape: tuple[int, ...]  # (n, c, *size)
    build: Callable[[np.random.Generator, tuple[int, ...]], Network]
    has_bias: bool

    @property
    def rng(self):
        return np.random.default_rng(zlib.crc32(self.id.encode()))


def _weight(rng, shape, out_axis=0):
    """Random weights whose second output channel is dead (all 0) and whose last has no positive part, where there is
    room for it.
    """
    weight = rng.standard_normal(shape).astype(np.float32)
    channels = np.moveaxis(weight, out_axis, 0)
    if len(channels) >= 3:
        channels[-1] = -abs(channels[-1])
        channels[1] = 0
    return weight


def _bias(rng, n):
    bias = rng.standard_normal(n).astype(np.float32)
    if n >= 3:
        bias[1] = 0
    return bias


# ---------------------------------------------------------------------------------------------------- kinds of geometry


def _weighted(record, matrix, shape, out_axis=0, bias=True, **options):
    def build(rng, x_shape):
        weight = _weight(rng, shape, out_axis)
        n_out = shape[out_axis] * (options.get("groups", 1) if out_axis else 1)
        b = _bias(rng, n_out) if bias else None
        return Network([record(weight, b, **options)], matrix(x_shape, weight, b, **options))

    return build, bias


def linear(n_in, n_out, **options):
    return _weighted(dtd.Linear, explicit.linear, (n_out, n_in), **options)


def conv(*shape, **options):
    return _weighted(dtd.Conv, explicit.conv, shape, **options)


def conv_transpose(*shape, **options):
    return _weighted(dtd.ConvTranspose, explicit.conv_transpose, shape, out_axis=1, **options)


def _pool(record, matrix, *args, **options):
    return lambda rng, x_shape: Network([record(*args, **options)], matrix(x_shape, *args, **options)), False


def avg_pool(*args, **options):
    return _pool(dtd.AvgPool, explicit.pool, *args, **options)


def sum_pool(*args, **options):
    return _pool(dtd.SumPool, explicit.sum_pool, *args, **options)


def global_avg_pool():
    return _pool(dtd.GlobalAvgPool, explicit.global_avg_pool)


def add(*branches):
    """An Add of the input (None) and of layers that read the input, as one neuron."""

    def build(rng, x_shape):
        layers, taps, inputs = [], [], []
        for branch in branches:
            if branch is None:
                inputs.append(dtd.INPUT)
                taps.append(explicit.identity(x_shape))
            else:
                record, matrix, shape, options = branch
                weight, bias = _weight(rng, shape), _bias(rng, shape[0])
                inputs.append(len(layers))
                layers.append(record(weight, bias, inputs=dtd.INPUT, **options))
                taps.append(matrix(x_shape, weight, bias, **options))
        return Network([*layers, dtd.Add(inputs=tuple(inputs))], explicit.add(*taps), len(branches))

    return build, any(branches)


def _batch_norm(rng, n):
    """A BatchNorm and its affine map (factor, shift) in float64."""
    mean, weight, bias = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0.5, 2, n).astype(np.float32)
    factor = weight / np.sqrt(variance.astype(float) + 1e-3)
    return dtd.BatchNorm(mean, variance, weight, bias, eps=1e-3), factor, bias - mean * factor


def conv_norm(*shape, **options):
    """A BatchNorm that folds into the convolution before it."""

    def build(rng, x_shape):
        weight, bias = _weight(rng, shape), _bias(rng, shape[0])
        norm, factor, shift = _batch_norm(rng, shape[0])
        folded = weight * factor.reshape(-1, *[1] * (len(shape) - 1))
        return Network(
            [dtd.Conv(weight, bias, **options), norm], explicit.conv(x_shape, folded, bias * factor + shift, **options)
        )

    return build, True


def norm_conv(*shape, **options):
    """A BatchNorm that folds forward into the unpadded convolution after it."""

    def build(rng, x_shape):
        weight, bias = _weight(rng, shape), _bias(rng, shape[0])
        norm, factor, shift = _batch_norm(rng, x_shape[0])
        per_channel = (1, -1, *[1] * (len(shape) - 2))
        folded_bias = bias + (weight * shift.reshape(per_channel)).reshape(shape[0], -1).sum(1)
        taps = explicit.conv(x_shape, weight * factor.reshape(per_channel), folded_bias, **options)
        return Network([norm, dtd.Conv(weight, bias, **options)], taps)

    return build, True


def pad_conv(padding, *shape, **options):
    """An explicit Pad that merges into its reader."""

    def build(rng, x_shape):
        weight, bias = _weight(rng, shape), _bias(rng, shape[0])
        taps = explicit.conv(x_shape, weight, bias, padding=padding, **options)
        return Network([dtd.Pad(padding), dtd.Conv(weight, bias, **options)], taps)

    return build, True


def flatten_linear(n_out):
    def build(rng, x_shape):
        n_in = int(np.prod(x_shape))
        weight, bias = _weight(rng, (n_out, n_in)), _bias(rng, n_out)
        return Network([dtd.Flatten(), dtd.Linear(weight, bias)], explicit.linear((n_in,), weight, bias))

    return build, True


def reduce(*args, **options):
    return _pool(dtd.Reduce, explicit.reduce, *args, **options)


def interpolation(n_in, n_out):
    """Rows of two weights (1, 0 where an element is met) between the first and the last element."""
    at = np.linspace(0, n_in - 1, n_out)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(n_in))).astype(np.float32)


def resample(*weights):
    return _pool(dtd.Resample, explicit.resample, weights)


def signed(n_in, n_out):
    """A matrix of both signs, with zeros, as bicubic ones."""
    weight = np.cos(np.arange(n_in * n_out, dtype=np.float32)).reshape(n_out, n_in)
    return np.where(abs(weight) < 0.4, np.float32(0), weight)


CONV, LINEAR = (dtd.Conv, explicit.conv), (dtd.Linear, explicit.linear)

GEOMETRIES = [
    Geometry(name, shape, *kind)
    for name, shape, kind in [
        ("linear-1to1", (1, 1), linear(1, 1)),
        ("linear-3to2", (2, 3), linear(3, 2)),
        ("linear-7to15", (3, 7), linear(7, 15)),
        ("linear-16to17-nobias", (2, 16), linear(16, 17, bias=False)),
        ("linear-31to33", (2, 31), linear(31, 33)),
        ("linear-65to16", (1, 65), linear(65, 16)),
        ("linear-15to65", (7, 15), linear(15, 65)),
        ("linear-17to1", (2, 17), linear(17, 1)),
        ("linear-1to31", (1, 1), linear(1, 31)),
        ("flatten-linear", (2, 3, 7, 2), flatten_linear(17)),
        ("conv1d-1tap", (2, 1, 7), conv(1, 1, 1)),
        ("conv1d-same", (2, 3, 15), conv(16, 3, 3, padding=1)),
        ("conv1d-stride2", (2, 7, 33), conv(2, 7, 5, stride=2, padding=2)),
        ("conv1d-dilated-asymmetric", (1, 2, 31), conv(3, 2, 3, dilation=4, padding=((3, 1),))),
        ("conv1d-depthwise", (2, 17, 16), conv(17, 1, 3, padding=1, groups=17)),
        ("conv1d-groups-stride3", (2, 6, 17), conv(9, 2, 2, stride=3, groups=3)),
        ("conv1d-whole", (1, 1, 65), conv(1, 1, 65)),
        ("conv2d-1x1-pixel", (1, 1, 1, 1), conv(1, 1, 1, 1)),
        ("conv2d-same", (2, 3, 7, 7), conv(7, 3, 3, 3, padding=1)),
        ("conv2d-1x1", (2, 16, 3, 3), conv(17, 16, 1, 1)),
        ("conv2d-1x1-wide", (1, 65, 2, 2), conv(33, 65, 1, 1)),
        ("conv2d-1x1-stride2-nobias", (2, 15, 3, 7), conv(31, 15, 1, 1, stride=2, bias=False)),
        ("conv2d-7x7-stride2", (1, 3, 7, 16), conv(16, 3, 7, 7, stride=2, padding=3)),
        ("conv2d-oblong", (2, 2, 7, 15), conv(3, 2, 3, 5, stride=(2, 3), padding=(1, 2), dilation=(2, 1))),
        ("conv2d-asymmetric", (1, 3, 7, 7), conv(15, 3, 3, 3, stride=2, padding=((0, 1), (2, 0)))),
        ("conv2d-even-kernel", (2, 3, 7, 7), conv(5, 3, 2, 2, padding=((1, 0), (0, 1)))),
        ("conv2d-depthwise", (2, 15, 7, 3), conv(15, 1, 3, 3, padding=1, groups=15)),
        ("conv2d-depthwise-stride2", (2, 16, 5, 5), conv(16, 1, 3, 3, stride=2, padding=1, groups=16)),
        ("conv2d-depthwise-twofold", (2, 3, 7, 7), conv(6, 1, 3, 3, groups=3)),
        ("conv2d-groups2", (1, 8, 5, 5), conv(34, 4, 3, 3, padding=1, groups=2)),
        ("conv2d-whole", (2, 31, 3, 2), conv(1, 31, 3, 2)),
        ("conv2d-17x31", (1, 1, 17, 31), conv(1, 1, 3, 3, padding=1)),
        ("conv2d-33channels", (1, 1, 3, 16), conv(33, 1, 3, 3, padding=1)),
        ("conv2d-16to16", (3, 16, 3, 7), conv(16, 16, 3, 3, padding=1)),
        ("conv2d-wide-border", (2, 3, 3, 3), conv(4, 3, 3, 3, padding=2)),
        ("conv2d-outputs-without-taps", (1, 2, 3, 3), conv(3, 2, 1, 1, padding=1)),
        ("conv2d-unread-inputs", (2, 3, 15, 15), conv(3, 3, 2, 2, stride=4)),
        ("conv2d-dilation3", (1, 2, 15, 15), conv(2, 2, 3, 3, dilation=3, padding=3)),
        ("conv3d-same", (1, 2, 3, 7, 5), conv(3, 2, 3, 3, 3, padding=1)),
        ("conv3d-stride", (2, 3, 3, 3, 2), conv(7, 3, 2, 2, 2, stride=(1, 2, 1))),
        ("conv3d-depthwise-asymmetric", (1, 3, 3, 4, 5),
         conv(3, 1, 3, 1, 3, padding=((1, 1), (0, 0), (0, 2)), dilation=(1, 1, 2), groups=3)),
        ("conv3d-groups2", (1, 4, 2, 3, 3), conv(6, 2, 1, 2, 2, groups=2)),
        ("transposed1d-stride2", (2, 3, 7), conv_transpose(3, 5, 3, stride=2)),
        ("transposed1d-padding", (2, 3, 5), conv_transpose(3, 2, 4, stride=2, padding=1, bias=False)),
        ("transposed1d-depthwise", (2, 4, 3), conv_transpose(4, 1, 3, stride=2, padding=1, output_padding=1, groups=4)),
        ("transposed2d-2x2", (2, 3, 3, 3), conv_transpose(3, 7, 2, 2, stride=2)),
        ("transposed2d-3x3", (1, 16, 3, 2), conv_transpose(16, 17, 3, 3, stride=2, padding=1, output_padding=1)),
        ("transposed2d-oblong", (2, 2, 3, 5), conv_transpose(2, 3, 3, 2, stride=(3, 1), padding=((0, 1), (1, 0)),
        dilation=(1, 2))),
        ("transposed2d-groups", (1, 4, 3, 3), conv_transpose(4, 3, 3, 3, padding=1, groups=2)),
        ("transposed2d-holes", (1, 3, 2, 2), conv_transpose(3, 3, 1, 1, stride=3)),
        ("transposed2d-from-pixel", (2, 7, 1, 1), conv_transpose(7, 15, 4, 4)),
        ("transposed3d", (1, 2, 2, 3, 2), conv_transpose(2, 3, 2, 3, 2, stride=(2, 1, 2), padding=(0, 1, 0))),
        ("avg1d-padding", (2, 3, 7), avg_pool(3, stride=2, padding=1)),
        ("avg1d-ceil", (2, 17, 15), avg_pool(2, ceil_mode=True)),
        ("avg2d", (2, 16, 7, 3), avg_pool(2)),
        ("avg2d-valid-only", (2, 3, 7, 7), avg_pool(3, stride=2, padding=1, count_include_pad=False)),
        ("avg2d-ceil-padding", (1, 2, 7, 16), avg_pool(3, stride=2, padding=1, ceil_mode=True)),
        ("avg2d-ceil-valid-only", (1, 2, 8, 7), avg_pool(3, stride=3, padding=1, ceil_mode=True,
        count_include_pad=False)),
        ("avg2d-ceil-beyond", (1, 2, 2, 5), avg_pool(3, stride=2, ceil_mode=True)),
        ("avg2d-oblong", (2, 1, 7, 5), avg_pool((2, 3), stride=(3, 1))),
        ("avg2d-asymmetric", (1, 3, 5, 6), avg_pool(2, padding=((1, 0), (0, 1)))),
        ("avg3d", (1, 2, 3, 4, 5), avg_pool(2, stride=1)),
        ("sum1d", (2, 7, 15), sum_pool(3, stride=2)),
        ("sum2d-overlapping", (2, 15, 5, 5), sum_pool(3, stride=1, padding=1)),
        ("sum2d-ceil", (1, 2, 7, 7), sum_pool(2, stride=2, ceil_mode=True)),
        ("global1d", (2, 3, 31), global_avg_pool()),
        ("global2d", (2, 33, 3, 7), global_avg_pool()),
        ("global2d-pixel", (2, 7, 1, 1), global_avg_pool()),
        ("global3d", (1, 2, 3, 2, 3), global_avg_pool()),
        ("linear-last-axis", (2, 3, 7), linear(7, 5, axis=-1)),
        ("linear-middle-axis", (2, 3, 16, 2), linear(16, 7, axis=2)),
        ("linear-channels", (2, 6, 3, 2), linear(6, 4, axis=1)),
        ("linear-last-of-five", (1, 2, 1, 2, 2, 5), linear(5, 3, axis=5)),
        ("linear-first-of-five", (1, 5, 1, 2, 2, 2), linear(5, 3, axis=1)),
        ("mean-last-axis", (2, 3, 7), reduce("mean", -1)),
        ("mean-channels", (2, 5, 3, 4), reduce("mean", 1, keepdims=True)),
        ("mean-features", (3, 17), reduce("mean", 1, keepdims=True)),
        ("mean-two-of-five", (1, 2, 3, 2, 3, 2), reduce("mean", (2, 5))),
        ("sum-space", (2, 3, 4, 5), reduce("sum", (2, 3))),
        ("sum-outer-axes", (2, 3, 4, 5), reduce("sum", (1, 3))),
        ("resample1d", (2, 3, 4), resample(interpolation(4, 7))),
        ("resample2d", (1, 2, 3, 4), resample(interpolation(3, 5), interpolation(4, 3))),
        ("resample2d-signed", (2, 2, 4, 3), resample(signed(4, 3), signed(3, 5))),
        ("resample2d-one-axis", (2, 3, 4, 3), resample(None, interpolation(3, 5))),
        ("resample3d", (1, 2, 2, 3, 2), resample(interpolation(2, 3), None, interpolation(2, 4))),
        ("add-linear-last-axis", (2, 3, 5), add((*LINEAR, (5, 5), {"axis": -1}), None)),
        ("add-two-linear-middle-axis", (1, 2, 4, 3), add((*LINEAR, (4, 4), {"axis": 2}), (*LINEAR, (4, 4),
        {"axis": 2}))),
        ("add-five-axes", (1, 2, 1, 2, 2, 3), add(None, None)),
        ("add-same", (2, 3, 2, 2), add(None, None)),
        ("add-linear", (2, 17), add((*LINEAR, (17, 17), {}), None)),
        ("add-conv", (2, 3, 5, 7), add((*CONV, (3, 3, 3, 3), {"padding": 1}), None)),
        ("add-conv-last", (2, 16, 3, 3), add(None, (*CONV, (16, 16, 1, 1), {}))),
        ("add-two-convs", (1, 2, 7, 7), add((*CONV, (7, 2, 3, 3), {"padding": 1, "stride": 2}), (*CONV, (7, 2, 1, 1),
        {"stride": 2}))),
        ("add-three", (2, 3, 15), add((*CONV, (3, 1, 3), {"padding": 1, "groups": 3}), None, None)),
        ("conv-norm", (2, 3, 5, 5), conv_norm(7, 3, 3, 3, padding=1)),
        ("norm-conv", (2, 3, 5, 5), norm_conv(7, 3, 3, 3)),
        ("norm-conv1d-stride", (2, 16, 7), norm_conv(15, 16, 3, stride=2)),
        ("pad-conv", (2, 3, 5, 4), pad_conv(((1, 0), (2, 1)), 5, 3, 3, 3)),
    ]
]  # fmt: skip
