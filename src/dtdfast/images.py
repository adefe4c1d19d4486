"""Photographs as a network's input: decoded, resized, cropped and normalised, by Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .extras import require

Array = NDArray[Any]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of red, green, blue in 0 to 1
BICUBIC = 3  # Pillow's Resampling.BICUBIC
MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}


@dataclass(frozen=True)
class Preparation:
    """How a network was fed when it was trained: x = (scale·p − mean)/std with pixels p from 0 to 1.

    Parameters
    ----------
    size : (height, width)
    crop : the share of the centre that is kept of the largest rectangle with the shape of `size`
    channels : "rgb", "bgr" or "gray"
    mean, std : one number, or one per channel in the network's order; None: ImageNet's for colours without any scale, else 0 and 1
    scale : None: 1
    layout : "nchw" or "nhwc"
    """

    size: tuple[int, int]
    crop: float = 0.875
    channels: str = "rgb"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: str = "nchw"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise InputError(f"crop is {self.crop}, expected the share of the image that is kept: above 0, at most 1")
        if min(self.size) < 1 or max(self.size) > 1 << 14:
            raise InputError(f"size is {self.size}, expected a height and width from 1 to {1 << 14}")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std is {self.std}, expected positive numbers")
        for key in ("mean", "std"):
            if len(getattr(self, key) or (0,)) not in (1, self.n_channels):
                raise InputError(f"{key} is {getattr(self, key)}, expected one number or {self.n_channels} ({self.channels})")

    @property
    def n_channels(self) -> int:
        return 1 if self.channels == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample."""
        height, width = self.size
        return (self.n_channels, height, width) if self.layout == "nchw" else (height, width, self.n_channels)

    def picture(self, path: Path) -> Array:
        """The photograph as the network sees it: bytes (height, width) or (height, width, 3), in red, green, blue."""
        image, ops = require("PIL.Image", "images"), require("PIL.ImageOps", "images")
        try:
            with image.open(path) as file:
                ops.exif_transpose(file, in_place=True)
                mode = MODES[self.channels]
                file.load()
                upright = file if file.mode == mode else file.convert(mode)
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever Pillow's decoders raise on a damaged file, decompression bombs included
            raise InputError(f"{path} cannot be read as an image: {error}") from None
        return self.resized(upright)

    def resized(self, image: Any) -> Array:
        """A Pillow image's centre, in the size that the network takes."""
        height, width = self.size
        unit = self.crop * min(image.width / width, image.height / height)
        left, top = (image.width - unit * width) / 2, (image.height - unit * height) / 2
        box = (left, top, left + unit * width, top + unit * height)
        return np.asarray(image.resize((width, height), BICUBIC, box=box))

    def normalised(self, picture: Array, out: Array | None = None) -> Array:
        """One sample, float32; in `out` if that is given."""
        pixels = picture.reshape(*self.size, self.n_channels)
        x = np.empty(self.shape, np.float32) if out is None else out
        for c, values in enumerate(self._table):
            of = pixels[..., self.n_channels - 1 - c if self.channels == "bgr" else c]
            np.take(values, of, out=x[c] if self.layout == "nchw" else x[..., c], mode="clip")  # a byte is in range: nothing to check
        return x

    @cached_property
    def _table(self) -> Array:
        """(channels, 256): what each byte becomes in each channel, in float64 and then rounded."""
        scale, mean, std = self._numbers()
        values: Array = (scale * (np.arange(256)[:, None] / 255) - mean) / std
        return np.broadcast_to(values, (256, self.n_channels)).T.astype(np.float32)

    @property
    def domain(self) -> tuple[Array, Array]:
        """What a black and a white pixel become, of one sample's shape."""
        scale, mean, std = self._numbers()
        bounds = [np.broadcast_to((value - mean) / std, (*self.size, self.n_channels)) for value in (0.0, scale)]
        low, high = (b.transpose(2, 0, 1) if self.layout == "nchw" else b for b in bounds)
        return low, high

    def _numbers(self) -> tuple[float, Array, Array]:
        mean, std = self.mean, self.std
        if self.channels != "gray" and self.mean is None and self.std is None and self.scale is None:
            mean, std = (tuple(reversed(v)) if self.channels == "bgr" else v for v in IMAGENET)
        return 1.0 if self.scale is None else self.scale, np.array(mean or (0.0,)), np.array(std or (1.0,))
