"""Photographs as a network's input: decoded, resized, cropped and normalised, by Pillow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import budget
from .arrays.checks import host_array
from .errors import InputError, starved
from .extras import require
from .files import readable, regular
from .locks import cached_property

Array = NDArray[Any]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of red, green, blue in 0 to 1
BICUBIC = 3  # Pillow's Resampling.BICUBIC
MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
LAYOUTS = ("nchw", "nhwc")

# What may be decoded, whatever the file is called. Pillow knows more, and some of it starts other programs (EPS:
# Ghostscript).
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(f".{name}" for name in (
    "apng", "bmp", "dib", "gif", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg", "jpf", "jpg", "jpx", "pbm", "pfm",
    "pgm", "png", "pnm",
    "ppm", "tif", "tiff", "webp",
))  # fmt: skip
NARROW = ("1", "L", "P")  # modes of Pillow with a byte per pixel
BITS, COMPRESSION, PHOTOMETRIC, PLANES, FORMAT = 258, 259, 262, 284, 339  # tags of TIFF
NONE, WHITE_IS_ZERO, APART, SIGNED = 1, 0, 2, 2


@dataclass(frozen=True)
class Preparation:
    """How a network was fed when it was trained: x = (scale·p − mean)/std with pixels p from 0 to 1.

    Parameters
    ----------
    size : (height, width)
    crop : the share of the centre that is kept of the largest rectangle with the shape of `size`
    channels : "rgb", "bgr" or "gray"
    mean, std : one number, or one per channel in the network's order; None: ImageNet's for colours without any scale,
        else 0 and 1
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
        for key, known in (("channels", tuple(MODES)), ("layout", LAYOUTS)):
            if not isinstance(given := getattr(self, key), str) or given not in known:
                raise InputError(f"{key} is {given!r:.60}, expected {' or '.join(known)}")
        size = host_array(self.size, "size")
        if size.shape != (2,) or size.dtype.kind not in "iu" or not 1 <= size.min() <= size.max() <= 1 << 14:
            raise InputError(f"size is {self.size!r:.60}, expected (height, width), both from 1 to {1 << 14}")
        object.__setattr__(self, "size", tuple(size.tolist()))
        for key in ("crop", "mean", "std", "scale"):
            if (given := getattr(self, key)) is None and key != "crop":
                continue
            values, several = host_array(given, key), key in ("mean", "std")
            if values.ndim > several or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
                raise InputError(f"{key} is {given!r:.60}, expected finite numbers")
            object.__setattr__(self, key, tuple(values.reshape(-1).tolist()) if several else values.item())
        if not 0 < self.crop <= 1:
            raise InputError(f"crop is {self.crop}, expected the share of the image that is kept: above 0, at most 1")
        for key in ("mean", "std"):
            given = getattr(self, key)
            if given is not None and len(given) not in (1, self.n_channels):
                raise InputError(f"{key} is {given}, expected one number or {self.n_channels} ({self.channels})")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std is {self.std}, expected positive numbers")
        if self.scale == 0:
            raise InputError("scale is 0, which would make every image the same")

    def __str__(self) -> str:
        """In one line: size, order and numbers."""
        height, width = self.size
        scale, mean, std = self._numbers()
        of_channels = [
            f"({', '.join(f'{v:g}' for v in values)})" if len(values) > 1 else f"{values[0]:g}"
            for values in (mean, std)
        ]
        return (
            f"{self.crop:g} of the centre, {height} × {width}, {self.channels}, {self.layout}; "
            f"x = ({scale:g}·p − {of_channels[0]}) / {of_channels[1]} with p from 0 to 1"
        )

    @property
    def n_channels(self) -> int:
        return 1 if self.channels == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample."""
        height, width = self.size
        return (self.n_channels, height, width) if self.layout == "nchw" else (height, width, self.n_channels)

    def picture(self, path: str | os.PathLike[str]) -> Array:
        """The photograph as the network sees it: bytes (height, width) or (height, width, 3), in red, green, blue."""
        image, ops = require("PIL.Image", "images"), require("PIL.ImageOps", "images")
        regular(path)
        try:
            image.init()
            with image.open(path, formats=[name for name in FORMATS if name in image.OPEN]) as file:
                pixels, size = file.width * file.height, 8 if file.mode in NARROW or file.mode.startswith("RGB") else 24
                budget.require(pixels * size, f"to decode {file.width} × {file.height} pixels")
                _check_planes(file)
                ops.exif_transpose(file, in_place=True)
                file.load()
                upright = self._coloured(file)
        except Exception as error:  # whatever Pillow's decoders raise on a damaged file, decompression bombs included
            if starved(error):
                raise
            raise InputError(f"{readable(str(path))} cannot be read as an image: {_said(error)}") from None
        return self.resized(upright)

    def resized(self, image: Any) -> Array:
        """A Pillow image's centre, in the size and the kind of colours that the network takes."""
        if not hasattr(image, "convert"):
            raise InputError(
                f"image is a {type(image).__name__}, expected one of Pillow's, as by Image.fromarray(bytes)"
            )
        image, (height, width) = self._coloured(image), self.size
        unit = self.crop * min(image.width / width, image.height / height)
        # which rounding may bring below 0, where Pillow refuses it
        left, top = max(0.0, (image.width - unit * width) / 2), max(0.0, (image.height - unit * height) / 2)
        box = (left, top, left + unit * width, top + unit * height)
        return np.asarray(image.resize((width, height), BICUBIC, box=box))

    def normalised(self, picture: Array, out: Array | None = None) -> Array:
        """One sample, float32, of a picture as `resized` returns it; in `out` if that is given."""
        shape = (*self.size, self.n_channels)
        grey = picture.shape == shape[:2] and self.n_channels == 1
        if picture.dtype != np.uint8 or not (grey or picture.shape == shape):
            raise InputError(
                f"picture holds {picture.dtype} of shape {picture.shape}, expected uint8 of shape {shape}, as "
                "`resized` returns it"
            )
        pixels = picture.reshape(shape)
        x = np.empty(self.shape, np.float32) if out is None else out
        for c, values in enumerate(self._table):
            of = pixels[..., self.n_channels - 1 - c if self.channels == "bgr" else c]
            # a byte is in range: nothing to check
            np.take(values, of, out=x[c] if self.layout == "nchw" else x[..., c], mode="clip")
        return x

    def _coloured(self, file: Any) -> Any:
        plain = require("PIL.Image", "images").fromarray(_bytes(file)) if file.mode[0] in "IF" else file
        return plain if plain.mode == MODES[self.channels] else plain.convert(MODES[self.channels])

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
        ends = sorted((0.0, scale))  # a negative scale is for networks that were fed negatives
        bounds = [np.broadcast_to((value - mean) / std, (*self.size, self.n_channels)) for value in ends]
        low, high = (b.transpose(2, 0, 1) if self.layout == "nchw" else b for b in bounds)
        return low, high

    def _numbers(self) -> tuple[float, Array, Array]:
        mean, std = self.mean, self.std
        if self.channels != "gray" and self.mean is None and self.std is None and self.scale is None:
            mean, std = (tuple(reversed(v)) if self.channels == "bgr" else v for v in IMAGENET)
        return 1.0 if self.scale is None else self.scale, np.array(mean or (0.0,)), np.array(std or (1.0,))


def _check_planes(file: Any) -> None:
    """Refuse what Pillow (13) takes for bytes: colours of 16 bits in a TIFF without compression, each by itself."""
    tags = getattr(file, "tag_v2", {})
    apart = tags.get(PLANES) == APART and tags.get(COMPRESSION, NONE) == NONE
    if apart and file.mode[0] not in "IF" and max(tags.get(BITS, (1,))) > 8:
        raise ValueError("its colours of more than eight bits lie apart; store them together, or compressed")


def _bytes(file: Any) -> NDArray[np.uint8]:
    """Pixels of more than eight bits (Pillow's modes I;16, I and F), scaled so that the white of their type becomes
    255.

    White is the largest number of the bits that a TIFF names, 65535 in other files, and 1 of floats.
    """
    tags = getattr(file, "tag_v2", {}) if file.format == "TIFF" else {}
    bits = tags.get(BITS, (16,))[0]
    values = np.asarray(file)
    signed = tags.get(FORMAT, (1,))[0] == SIGNED
    if file.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow reads the same bits as signed
    white = 1.0 if file.mode == "F" else float(2 ** (bits - 1 if signed else bits) - 1)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= white:
        raise ValueError(
            f"its pixels of type {values.dtype} are from {low:g} to {high:g}, expected 0 (black) to {white:g} (white)"
        )
    levels = np.multiply(values, 255 / white, dtype=np.float64)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        np.subtract(255, levels, out=levels)
    rounded: NDArray[np.uint8] = np.rint(levels, out=levels).astype(np.uint8)
    return rounded


def _said(error: Exception) -> str:
    """What is wrong, in one line, without the path and the object that Pillow's message names."""
    if type(error).__name__ == "UnidentifiedImageError":
        return f"it is none of {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__
