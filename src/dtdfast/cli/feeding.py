"""How a model on the command line is fed: its file, the layout and channels that it takes, and the options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DtdError, InputError, ModelError, ShapeError
from ..explainer import Explainer
from ..files import readable, regular
from ..images import Preparation
from ..importers.onnx.importer import OnnxModel, fits
from ..layers import Layer
from ..layout import CHANNEL_AXIS, seen
from ..listing import summary
from ..plan.shapes import Shape
from ..storage import load
from ..threads import default_threads

OPEN = (0, 0, 0, 0)  # what a file declares that says nothing: four axes
SIDE = 224  # where neither the file nor the caller says a size
WAYS = {  # from models that are not read here, by the ends of their names
    ".pt .pth .bin .ckpt": "dtdfast.from_torch(module.eval(), example)",
    ".pt2": "dtdfast.from_torch(path)",
    ".keras .h5 .hdf5": "dtdfast.from_keras(keras.models.load_model(path))",
    ".pkl .pickle .joblib .skops": "dtdfast.from_sklearn(estimator)",
}
OF_PICTURES = ("size", "crop", "mean", "std", "scale", "channels", "layout")


@dataclass(frozen=True)
class Fed:
    """A network, and what it is fed.

    Attributes
    ----------
    preparation : None for samples that are fed as they are
    domain : as the options say it: "pixels", "real", "nonnegative" or (low, high)
    """

    layers: list[Layer]
    preparation: Preparation | None
    domain: Any

    @property
    def bounds(self) -> Any:
        """The domain as `Explainer` takes it."""
        return self.preparation.domain if self.preparation is not None and self.domain == "pixels" else self.domain

    @property
    def photographs(self) -> Preparation:
        """How pictures are fed, where they are."""
        assert self.preparation is not None
        return self.preparation

    @property
    def domain_text(self) -> str:
        """The domain as it is printed."""
        return self.domain if isinstance(self.domain, str) else "{:g} to {:g}".format(*self.domain)

    def explainer(self, arguments: argparse.Namespace, rules: str, passes: int = 1) -> Explainer:
        """One that shares the threads with others, where several passes run side by side."""
        threads = arguments.threads if passes == 1 else (arguments.threads or default_threads()) // passes
        return Explainer(self.layers, domain=self.bounds, rules=rules, backend=arguments.backend, n_threads=threads)


def is_onnx(path: Path) -> bool:
    """Whether a model's file, which exists, is ONNX and not a saved list."""
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        way = next((of for suffixes, of in WAYS.items() if suffix in suffixes.split()), None)
        raise ModelError(
            f"{readable(str(path))}: expected a file that ends in .onnx, or in .safetensors (written by dtdfast.save)"
            + ("" if way is None else f"; save it once from Python: dtdfast.save({way}, 'model.safetensors')")
        )
    regular(path)
    return suffix == ".onnx"


def opened(path: Path) -> OnnxModel | list[Layer]:
    """The file, read."""
    return OnnxModel(path) if is_onnx(path) else load(path)


def _alone(path: Path) -> OnnxModel | list[Layer]:
    """The file, read, if its network takes one input."""
    model = opened(path)
    if isinstance(model, OnnxModel) and model.beside:
        raise ModelError(
            f"{path}: it takes {', '.join(model.beside)} beside its input; explain it from Python, with "
            "keywords of these names"
        )
    return model


def fed_pictures(arguments: argparse.Namespace) -> Fed:
    """The network for pictures of the size that the options or its file say, and how they are fed to it.

    Raises
    ------
    ModelError : its input is no picture
    ShapeError : it takes other channels than it would be fed, or nothing tells their place
    """
    model = _alone(arguments.model)
    declared = (model.declared if isinstance(model, OnnxModel) else None) or OPEN
    if isinstance(model, OnnxModel) and (model.integer or len(declared) != len(OPEN)):
        raise ModelError(
            f"{arguments.model}: its input is not an image (n, channels, height, width); explain it from Python"
        )
    layers, preparation = _matched(arguments, model, declared)
    if not isinstance(model, OnnxModel) and arguments.size is None:
        try:
            summary(layers, preparation.shape)
        except ShapeError as error:
            side = " × ".join(map(str, preparation.size))
            raise ShapeError(
                f"{error}; {readable(str(arguments.model))} does not say the size of its pictures, and {side} was "
                "taken: give --size"
            ) from None
    return Fed(layers, preparation, arguments.domain or "pixels")


def takes_pictures(model: OnnxModel) -> bool:
    """Whether the file declares an input that pictures may fit."""
    declared = model.declared or OPEN
    return not model.integer and len(declared) == len(OPEN) and bool(_fitting(declared, None))


def fed_as_it_is(arguments: argparse.Namespace, sample: Shape) -> Fed:
    """The network for samples of an array.

    Raises
    ------
    InputError : an option for pictures is given
    ShapeError : the file declares another shape
    """
    if given := [key for key in OF_PICTURES if getattr(arguments, key) is not None]:
        raise InputError(f"--{given[0]} is for images; the samples of this array are fed to the network as they are")
    if arguments.domain == "pixels":
        raise InputError("--domain pixels is for images; of an array of floats say real, nonnegative or LOW,HIGH")
    model = _alone(arguments.model)
    domain = arguments.domain or "real"
    if not isinstance(model, OnnxModel):
        return Fed(model, None, domain)
    if model.declared is not None and not fits(model.declared, sample):
        turned = [s for s in _turned(sample) if fits(model.declared, s)]
        advice = (
            f"transpose it to {_batch(turned[0])}"
            if turned
            else "from Python, from_onnx(path, sample_shape=...) takes another"
        )
        raise ShapeError(
            f"{arguments.model} declares its input as {_batch(model.declared[1:])}, but the array is "
            f"{_batch(sample)}; {advice}"
        )
    return Fed(model.layers(sample), None, domain)


def _turned(sample: Shape) -> list[Shape]:
    """The same with its channels at the other end."""
    return [(*sample[1:], sample[0]), (sample[-1], *sample[:-1])]


def _batch(sizes: Sequence[int]) -> str:
    return f"(n, {', '.join(str(s) if s else '?' for s in sizes)})"


# ------------------------------------------------------------------------------------------------ layout and channels


def _matched(
    arguments: argparse.Namespace, model: OnnxModel | list[Layer], declared: tuple[int, ...]
) -> tuple[list[Layer], Preparation]:
    """Layers and preparation with the one layout and the one number of channels that file, layers and options allow.

    The file's declaration is asked first, then the layer that first meets the channels: a convolution or an affine
    layer.
    """
    known = seen(model) if not isinstance(model, OnnxModel) else None
    asked = {"gray": 1, None: None}.get(arguments.channels, 3)
    possible = [
        (layout, n)
        for layout, n in _fitting(declared, known)
        if arguments.layout in (None, layout) and asked in (None, n)
    ]
    if not possible:
        raise ShapeError(_unfit(arguments, declared, known))
    if not isinstance(model, OnnxModel):
        layout, n = _chosen(arguments, possible)
        return model, _preparation(arguments, layout, n, declared)
    found, failed = [], None
    for layout, n in possible:
        preparation = _preparation(arguments, layout, n, declared)
        try:
            layers = model.layers(preparation.shape)
        except DtdError as error:
            failed = failed or error
            continue
        told = seen(layers)
        if told in (None, (layout, n)):
            found.append(((layout, n), told is not None, layers, preparation))
        elif failed is None or len(possible) == 1:
            failed = ShapeError(_unfit(arguments, declared, told))
    if not found:
        assert failed is not None
        raise failed
    certain = [f for f in found if f[1]] or found
    choice = _chosen(arguments, [f[0] for f in certain])
    return next((layers, preparation) for pair, _, layers, preparation in certain if pair == choice)


def _chosen(arguments: argparse.Namespace, possible: list[tuple[str, int]]) -> tuple[str, int]:
    """The one that is left; where nothing tells the channels, colours; where nothing tells their place, a refusal."""
    n = max(n for _, n in possible)
    layouts = [layout for layout, number in possible if number == n]
    if len(layouts) > 1 and n > 1:
        raise ShapeError(
            f"{arguments.model} does not tell where its input has the channels; say --layout nchw or nhwc, or "
            "--channels gray"
        )
    return layouts[0], n


def _unfit(arguments: argparse.Namespace, declared: tuple[int, ...], known: tuple[str, int] | None) -> str:
    """Why no picture fits."""
    given = [f"--{key} {getattr(arguments, key)}" for key in ("layout", "channels") if getattr(arguments, key)]
    fitting = _fitting(declared, known)
    if known is None:
        takes = f"its input is declared as {_batch(declared[1:])}"
    else:
        takes = (
            f"its first layers take {known[1]} channel(s), at axis {CHANNEL_AXIS[known[0]]} of {_batch(declared[1:])}"
        )
    advice = "photographs have 1 or 3 channels, so explain it from Python"
    if given and fitting:
        advice = f"say --layout {fitting[0][0]} --channels {'gray' if fitting[0][1] == 1 else 'rgb'}, or neither"
    return f"{arguments.model} cannot be fed photographs{' with ' if given else ''}{' '.join(given)}: {takes}; {advice}"


def _fitting(declared: tuple[int, ...], known: tuple[str, int] | None) -> list[tuple[str, int]]:
    """Layouts with numbers of channels that a declaration, and the layers where they tell, allow."""
    pairs = [(layout, n) for layout in CHANNEL_AXIS for n in (3, 1)]
    return [
        (layout, n) for layout, n in pairs if declared[CHANNEL_AXIS[layout]] in (0, n) and known in (None, (layout, n))
    ]


def _preparation(arguments: argparse.Namespace, layout: str, n_channels: int, declared: tuple[int, ...]) -> Preparation:
    """From the options; sizes that they leave open, from the file."""
    height, width = declared[2:] if layout == "nchw" else declared[1:3]
    channels = arguments.channels or ("gray" if n_channels == 1 else "rgb")
    return Preparation(
        size=arguments.size or (height or SIDE, width or SIDE), channels=channels,
        crop=Preparation.crop if arguments.crop is None else arguments.crop,
        mean=arguments.mean,
        std=arguments.std, scale=arguments.scale, layout=layout,
    )  # fmt: skip
