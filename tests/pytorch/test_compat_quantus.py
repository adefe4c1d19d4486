"""Quantus's metrics with our explain_func, on the digits network and on SqueezeNet."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantus
import torch
import torchvision.models as tv
from numpy.typing import NDArray
from torch import nn

import dtdfast as dtd
from dtdfast.data import digits

pytestmark = pytest.mark.filterwarnings("ignore")

Array = NDArray[Any]
SQUEEZENET = Path(__file__).parents[2].parent / "shared" / "data" / "squeezenet1_1.onnx"


def digits_module() -> nn.Sequential:
    """The shipped network as PyTorch modules."""
    parts: list[nn.Module] = []
    for layer in digits()[0]:
        if isinstance(layer, dtd.Conv):
            c_out, c_in, *kernel = layer.weight.shape
            part: nn.Module = nn.Conv2d(c_in, c_out, kernel, padding=layer.padding[0][0])
        elif isinstance(layer, dtd.Linear):
            part = nn.Linear(*layer.weight.shape[::-1])
        else:
            part = {dtd.ReLU: nn.ReLU, dtd.MaxPool: lambda: nn.MaxPool2d(2), dtd.Flatten: nn.Flatten}[type(layer)]()
        if isinstance(layer, (dtd.Conv, dtd.Linear)):
            part.weight.data, part.bias.data = torch.tensor(layer.weight).float(), torch.tensor(layer.bias).float()
        parts.append(part)
    return nn.Sequential(*parts).eval()


def squeezenet_module() -> nn.Module:
    """torchvision's SqueezeNet 1.1 with the weights of the ONNX file: its convolutions come in the same order."""
    module = tv.squeezenet1_1(weights=None).eval()
    convs = [layer for layer in dtd.from_onnx(SQUEEZENET) if isinstance(layer, dtd.Conv)]
    parts = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    for part, layer in zip(parts, convs, strict=True):
        part.weight.data, part.bias.data = torch.tensor(layer.weight), torch.tensor(layer.bias)
    return module


def digits_case() -> tuple[nn.Module, Array]:
    return digits_module(), digits()[1][:3]


def squeezenet_case() -> tuple[nn.Module, Array]:
    if not SQUEEZENET.exists():
        pytest.skip("SqueezeNet's weights are not in ../shared/data")
    pixels = importlib.resources.files("skimage.data") / "chelsea.png"
    from skimage import io

    image = io.imread(str(pixels))[60:252:3, 120:312:3, ::-1].astype(np.float32)  # 64 × 64, blue first
    x = (image - (104, 117, 123)).transpose(2, 0, 1)[None].astype(np.float32)
    return squeezenet_module(), np.concatenate([x, x[..., ::-1]])


CASES: dict[str, Callable[[], tuple[nn.Module, Array]]] = {"digits": digits_case, "SqueezeNet": squeezenet_case}
QUIET = dict(disable_warnings=True, display_progressbar=False)
SIZES = {"digits": 16, "SqueezeNet": 2048}  # features perturbed at a time
METRICS: dict[str, Callable[[int, int], Any]] = {  # of features at a time and classes; two and more of every group
    "faithfulness: FaithfulnessCorrelation": lambda size, classes: quantus.FaithfulnessCorrelation(
        nr_runs=5, subset_size=size, **QUIET
    ),
    "faithfulness: PixelFlipping": lambda size, classes: quantus.PixelFlipping(features_in_step=size, **QUIET),
    "faithfulness: RegionPerturbation": lambda size, classes: quantus.RegionPerturbation(
        patch_size=4, regions_evaluation=4, **QUIET
    ),
    "robustness: MaxSensitivity": lambda size, classes: quantus.MaxSensitivity(nr_samples=3, lower_bound=0.02, **QUIET),
    "robustness: LocalLipschitzEstimate": lambda size, classes: quantus.LocalLipschitzEstimate(nr_samples=3, **QUIET),
    "robustness: RelativeInputStability": lambda size, classes: quantus.RelativeInputStability(nr_samples=3, **QUIET),
    "randomisation: MPRT": lambda size, classes: quantus.MPRT(layer_order="bottom_up", skip_layers=False, **QUIET),
    "randomisation: RandomLogit": lambda size, classes: quantus.RandomLogit(num_classes=classes, **QUIET),
    "complexity: Sparseness": lambda size, classes: quantus.Sparseness(**QUIET),
    "complexity: Complexity": lambda size, classes: quantus.Complexity(**QUIET),
    "complexity: EffectiveComplexity": lambda size, classes: quantus.EffectiveComplexity(**QUIET),
    "axiomatic: Completeness": lambda size, classes: quantus.Completeness(**QUIET),
    "axiomatic: NonSensitivity": lambda size, classes: quantus.NonSensitivity(**QUIET),
}


def numbers(scores: Any) -> Array:
    if isinstance(scores, dict):
        scores = list(scores.values())
    return np.concatenate(
        [np.ravel(np.asarray(s, np.float64)) for s in (scores if isinstance(scores, list) else [scores])]
    )


# SqueezeNet's last layer is a ReLU, dead with random weights, and Quantus refuses zeros; one pixel at a time takes long
ON_DIGITS_ONLY = {
    "randomisation: MPRT",
    "axiomatic: NonSensitivity",
}


@cache
def case(network: str) -> tuple[nn.Module, Array, Array]:
    module, x = CASES[network]()
    with torch.no_grad():
        return module, x, module(torch.from_numpy(x)).argmax(1).numpy()


@pytest.mark.parametrize(
    ("network", "name"),
    [pair for pair in product(CASES, METRICS) if pair[0] == "digits" or pair[1] not in ON_DIGITS_ONLY],
)
def test_metric(network: str, name: str, report: Callable[[str, tuple[str, ...]], None]) -> None:
    module, x, y = case(network)
    metric = METRICS[name](SIZES[network], 1000 if network == "SqueezeNet" else 10)
    scores = numbers(
        metric(model=module, x_batch=x, y_batch=y, a_batch=None, device="cpu", explain_func=dtd.compat.quantus.explain)
    )
    assert np.isfinite(scores).all()
    report("| Quantus 0.6.0 | network | mean score |", (name, network, f"{scores.mean():.3g}"))


def test_scores_are_those_of_our_maps() -> None:
    """The same as maps handed over ready made."""
    module, x = digits_case()
    layers, y = digits()[0], digits()[2][:3]
    given = quantus.Sparseness(**QUIET)(
        model=module, x_batch=x, y_batch=y, a_batch=dtd.explain(layers, x, np.eye(10)[y], domain=(0.0, 1.0))
    )
    options = dict(explain_func=dtd.compat.quantus.explain, explain_func_kwargs=dict(domain=(0.0, 1.0)), device="cpu")
    assert given == quantus.Sparseness(**QUIET)(model=module, x_batch=x, y_batch=y, a_batch=None, **options)


def test_randomised_weights_are_noticed() -> None:
    module, x = digits_case()
    before = dtd.compat.quantus.explain(module, x, np.zeros(3, int))
    module[-1].reset_parameters()
    after = dtd.compat.quantus.explain(model=module, inputs=x, targets=np.zeros(3, int), device="cpu")
    assert before.shape == after.shape == x.shape
    assert not np.allclose(before, after)


def test_by_default_the_largest_output() -> None:
    module, x = digits_case()
    largest = module(torch.tensor(x)).argmax(1).numpy()
    np.testing.assert_array_equal(dtd.compat.quantus.explain(module, x), dtd.compat.quantus.explain(module, x, largest))


def test_float64_in_is_float64_out() -> None:
    module, x = digits_case()
    assert dtd.compat.quantus.explain(module, x.astype(np.float64)).dtype == np.float64


def test_unknown_options() -> None:
    module, x = digits_case()
    with pytest.raises(dtd.DtdError, match="method: unknown option"):
        dtd.compat.quantus.explain(module, x, method="Saliency")


def test_models_without_classes_are_named() -> None:
    with pytest.raises(dtd.TargetError, match=r"the outputs have shape \(n, 2, 6, 6\), expected \(n, classes\)"):
        dtd.compat.quantus.explain(nn.Conv2d(1, 2, 3).eval(), np.ones((1, 1, 8, 8), np.float32), np.array([0]))
    with pytest.raises(dtd.ModelError, match="model is a function"):
        dtd.compat.quantus.explain(digits_case, np.ones((1, 1, 8, 8)))
