"""Seconds of first calls, each in fresh processes by turns; the least counts: `python bench/first_call.py [WORD...]`.

A word chooses the cases whose names hold it. An import is compared with `torch.export.export` alone, and the first
explanation with the second.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3
SQUEEZENET = Path(__file__).parents[2] / "shared/data/squeezenet1_1.onnx"


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def declare_operators() -> None:
    """Those that torchvision registers shape functions for, where it comes without its compiled ones."""
    import torch

    source = importlib.metadata.distribution("torchvision").locate_file("torchvision/_meta_registrations.py")
    for operator in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"', Path(str(source)).read_text()))):
        try:
            torch.library.define(f"torchvision::{operator}", "(Tensor a) -> Tensor")
        except RuntimeError:
            break


def model(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """A module, one sample for it, and options of `from_torch`."""
    import torch

    declare_operators()
    torch.manual_seed(0)
    if name == "BERT":  # four layers
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
        bert = BertForSequenceClassification(BertConfig(vocab_size=1000, **sizes)).eval()
        return bert, torch.randint(0, 1000, (1, 32)), {"output": "logits"}
    import torchvision

    made = {"ResNet-18": "resnet18", "VGG-16": "vgg16", "ViT-B/16": "vit_b_16"}[name]
    module = getattr(torchvision.models, made)().eval()
    if name == "ViT-B/16":  # whose last layer starts as 0
        torch.nn.init.normal_(module.heads.head.weight, std=0.02)
    return module, torch.rand(1, 3, 224, 224), {}


def warm(module: Any, x: Any) -> None:
    import torch

    with torch.no_grad():
        module(x)


def export(name: str) -> list[float]:
    import torch

    module, x, _ = model(name)
    warm(module, x)
    with torch.no_grad():
        return [seconds(lambda: torch.export.export(module, (torch.cat([x, x]),)))]


def from_torch(name: str) -> list[float]:
    import dtdfast as dtd

    module, x, options = model(name)
    warm(module, x)
    return [seconds(lambda: dtd.from_torch(module, x, **options))]


def captum(name: str) -> list[float]:
    """The first call, and the second."""
    from dtdfast.compat.captum import LRP

    module, x, _ = model(name)
    warm(module, x)
    tool = LRP(module)
    return [seconds(lambda: tool.attribute(x, target=0)) for _ in range(2)]


def explain(name: str) -> list[float]:
    """An Explainer and its first call, and the least of three more."""
    import dtdfast as dtd

    module, x, _ = model(name)
    layers, image = dtd.from_torch(module, x), np.asarray(x)
    kept: list[Any] = []

    def first() -> None:
        kept.append(dtd.Explainer(layers, domain="nonnegative"))
        kept[0].explain(image, 0)

    return [seconds(first), min(seconds(lambda: kept[0].explain(image, 0)) for _ in range(3))]


def from_onnx(name: str) -> list[float]:
    import dtdfast as dtd

    return [seconds(lambda: dtd.from_onnx(name))]


TORCH = ("ResNet-18", "VGG-16", "ViT-B/16", "BERT")
CASES: dict[str, tuple[Callable[[str], list[float]], str]] = {
    **{f"{kind.__name__} {name}": (kind, name) for name in TORCH for kind in (export, from_torch)},
    **{f"captum {name}": (captum, name) for name in ("ResNet-18", "VGG-16")},
    **{f"explain {name}": (explain, name) for name in ("ResNet-18", "VGG-16")},
    "from_onnx SqueezeNet": (from_onnx, str(SQUEEZENET)),
}


def fresh(case: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", case], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    result: list[float] = json.loads(done[-1])
    return result


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        call, name = CASES[sys.argv[2]]
        print(json.dumps(call(name)))
        return
    words = sys.argv[1:]
    chosen = [case for case in CASES if not words or any(word in case for word in words)]
    times: dict[str, list[list[float]]] = {case: [] for case in chosen}
    for _ in range(ROUNDS):
        for case in chosen:
            times[case].append(fresh(case))
    for case, rounds in times.items():
        least = [min(column) for column in zip(*rounds, strict=True)]
        print(f"{case:<24}" + "".join(f"{value:8.3f} s" for value in least), flush=True)


if __name__ == "__main__":
    main()
