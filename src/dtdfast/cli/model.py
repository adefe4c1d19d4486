"""`dtdfast inspect` and `plan`: what a model's file holds, and what would be done with it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ..errors import DtdError, InputError
from ..explainer import Explainer
from ..importers.onnx.importer import OnnxModel
from ..layers import Layer
from ..listing import summary
from ..plan.plan import listed
from ..plan.shapes import Shape
from ..show import as_json
from ..targets import Targets
from .feeding import OF_PICTURES, Fed, fed_as_it_is, fed_pictures, is_onnx, opened, takes_pictures
from .outputs import numbered


@dataclass(frozen=True)
class Model:
    """A model's file, read.

    Attributes
    ----------
    sample : shape of one sample of its input; None where neither the file nor the caller says it
    """

    layers: list[Layer]
    sample: Shape | None
    refusals: list[str]


def inspect(arguments: argparse.Namespace) -> str:
    """Every layer with its shape and parameters, and what would be refused: as text, or as JSON."""
    found = opened(arguments.model)
    if isinstance(found, OnnxModel):
        imported = found.read(arguments.shape)
        model = Model(imported.layers, imported.sample, imported.refusals)
    else:
        model = Model(found, arguments.shape, [])
    table = summary(model.layers, model.sample) if model.layers else None
    unexplained = None
    if not model.refusals and model.sample is not None:
        try:
            Explainer(model.layers).plan_for((1, *model.sample))
        except DtdError as error:
            unexplained = str(error)
    if arguments.json:
        layers = table.entries if table is not None else []
        return as_json(
            {"sample": model.sample, "layers": layers, "refused": model.refusals, "not explained": unexplained}
        )
    lines = [str(table)] if table is not None else []
    if table is not None and model.sample is None:
        lines.append("the file keeps no sizes: say them as --shape C,H,W")
    lines += [f"refused: {reason}" for reason in model.refusals]
    if unexplained is not None:
        lines.append(f"predicted, but not explained: {unexplained}")
    return "\n".join(lines)


def plan(arguments: argparse.Namespace) -> str:
    """The plan, as text or as JSON: every step of one explanation, as `explain` would do it with the same options."""
    fed, sample = _fed(arguments)
    explainer = fed.explainer(arguments, arguments.rules)
    planned = explainer.plan_for((arguments.batch, *sample))
    Targets.parse(
        numbered("--target", arguments.target, arguments.labels), arguments.batch, planned.program.network.output.shape
    )
    if not arguments.json:
        return str(planned)
    sizes = {"samples": planned.n, "sample": sample, "bytes": planned.memory, "multiply-adds": planned.macs}
    return as_json({**sizes, "steps": listed(planned)})


def _fed(arguments: argparse.Namespace) -> tuple[Fed, Shape]:
    """As pictures where the input is one, unless --shape alone says that samples of an array are meant."""
    pictures = arguments.domain == "pixels" or any(getattr(arguments, key) is not None for key in OF_PICTURES)
    if arguments.shape is not None and not pictures:
        return fed_as_it_is(arguments, arguments.shape), arguments.shape
    if not is_onnx(arguments.model):
        if arguments.shape is None and arguments.size is None:
            raise InputError(
                f"{arguments.model} does not say the shape of its input; give it: --shape 3,224,224, or --size for "
                "photographs"
            )
    elif not pictures and not takes_pictures(declared := OnnxModel(arguments.model)):
        if declared.declared is None or not all(declared.declared[1:]):
            raise InputError(f"{arguments.model} does not say the whole shape of its input; give it: --shape 3,224,224")
        return fed_as_it_is(arguments, declared.declared[1:]), declared.declared[1:]
    if arguments.shape is not None and arguments.size is None and len(arguments.shape) == 3:
        arguments.size = arguments.shape[1:] if arguments.shape[0] in (1, 3) else arguments.shape[:2]
    fed = fed_pictures(arguments)
    shape = fed.photographs.shape
    if arguments.shape not in (None, shape):
        raise InputError(
            f"--shape is {arguments.shape}, but photographs become {shape} by the other options; leave one out"
        )
    return fed, shape
