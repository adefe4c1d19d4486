"""Every rule with every option, found by looking at dtdfast.rules: what the random networks draw from.

A rule or a field that has no values here fails by name.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dtdfast import rules

STABILIZERS = (None, 1e-3, 0.25)
VALUES = {  # (rule, field) → what is drawn; `bias` is drawn from the rule's own list, AlphaBeta's beta is alpha − 1
    ("Epsilon", "epsilon"): (None, 0.125),
    ("Gamma", "gamma"): (0.0, 0.25, 10.0),
    ("AlphaBeta", "alpha"): (1.0, 2.0, 3.0),
    ("AlphaBeta", "fallback"): (False, True),
}


def rule_classes():
    """Every public rule, Pass included."""
    found, stack = [], [rules.Rule]
    while stack:
        for cls in stack.pop().__subclasses__():
            if (
                cls.__module__.startswith(f"{rules.__name__}.") and cls is not rules.Slope
            ):  # nor others that a drop-in needs for itself
                found.append(cls)
                stack.append(cls)
    return sorted(found, key=lambda cls: cls.__name__)


def _pick(rng, values):
    return values[int(rng.integers(len(values)))]


def _box(rng, shape, axis):
    """Bounds that inner values of random networks keep, as numbers, one per channel (of this axis of a sample) or one
    per element; shape None: as numbers.
    """
    form = _pick(rng, (None, (shape[axis],), shape) if shape is not None else (None,))
    low, high = (sign * (20.0 + rng.random(form)) for sign in (-1, 1))
    return {"low": low, "high": high}


def draw_rule(rng, cls, shape=None, axis=0):
    """A rule of this class, every field of it drawn; `shape` of a sample that the layer reads, its channels along
    `axis`.
    """
    fields = {}
    for field in dataclasses.fields(cls):
        if field.name == "bias":
            fields["bias"] = _pick(rng, (None, *cls.biases))
        elif field.name == "stabilizer":
            fields["stabilizer"] = _pick(rng, STABILIZERS)
        elif (cls, field.name) == (rules.ZBox, "low"):
            fields |= _box(rng, shape, axis)
        elif (cls, field.name) == (rules.AlphaBeta, "beta"):
            fields["beta"] = fields["alpha"] - 1
        elif field.name not in fields:
            fields[field.name] = _pick(rng, VALUES[cls.__name__, field.name])
    if fields.get("epsilon") is not None:
        fields["stabilizer"] = None  # the same number
    return cls(**fields)


def drawn(rule):
    """(rule, field, value) of each of its fields; arrays by their number of axes."""
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        yield type(rule).__name__, field.name, f"{np.ndim(value)} axes" if field.name in ("low", "high") else value
