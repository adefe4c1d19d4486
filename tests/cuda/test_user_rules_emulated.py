"""A rule that a user makes of `Share` and `Term`, by the CUDA executor, on the host and emulated thread by thread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import dtdfast as dtd
import user_rules
from dtdfast.cuda.run import driver, usable
from dtdfast.explainer import Explainer
from support import close, normal
from test_plans_emulated import EmulatingDevice


@pytest.mark.parametrize("name", user_rules.RULES)
def test_on_the_host(name: str, explainer: Callable[..., Explainer], rng: np.random.Generator) -> None:
    rule, _ = user_rules.RULES[name]
    layers, x = user_rules.network(rng), normal(rng, 3, 2, 4, 4)
    made = explainer(layers, rules=rule)
    close(made.explain(x, 0), dtd.explain(layers, x, 0, rules=rule, backend="oracle"), "cuda")
    ledger = made.ledger(x, 0)
    assert ledger.closed, str(ledger)


@pytest.mark.parametrize("name", ["excitatory", "magnitude, bias"])
def test_emulated(name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
    device = EmulatingDevice(compiled=True)
    device.contractions = set()
    monkeypatch.setattr(driver, "open_device", lambda number: device)
    rule, _ = user_rules.RULES[name]
    layers = [
        dtd.Conv(normal(rng, 8, 3, 3, 3), normal(rng, 8), padding=1),
        dtd.ReLU(),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 5, 128), normal(rng, 5)),
    ]
    x = normal(rng, 2, 3, 4, 4)
    made = Explainer(layers, backend="cuda", rules=rule)
    close(made.explain(x, 0), dtd.explain(layers, x, 0, rules=rule, backend="oracle"), "cuda")
    assert device.contractions
