"""What the plan knows of each kind of unit: nothing is guessed of a kind that leaves something out, and every executor
has every kind.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import layers, rules
from dtdfast.oracle import executor as oracle
from dtdfast.plan import units
from dtdfast.plan.units import KINDS, RECIPES, Unit, base


def without(member: str) -> dict[str, Any]:
    """The members of a complete unit but for one."""
    return {name: getattr(units.Normalise, name) for name in base.MEMBERS if name != member}


@pytest.mark.parametrize("member", base.MEMBERS)
def test_a_unit_that_leaves_something_out_is_refused(member: str) -> None:
    with pytest.raises(NotImplementedError, match=f"the unit Bogus does not say its {member}$"):
        type("Bogus", (Unit,), without(member))
    type("Whole", (Unit,), without(""))


def below(cls: type[Unit]) -> set[type[Unit]]:
    """The package's classes of units that derive from this one."""
    direct = {sub for sub in cls.__subclasses__() if sub.__module__.startswith("dtdfast.")}
    return direct.union(*map(below, direct))


def test_every_kind_says_everything_itself() -> None:
    """Nothing is inherited, but by neurons whose weights are held, from neurons; and no kind stands outside of the
    tuple.
    """
    for kind in KINDS:
        saying = [cls for cls in kind.__mro__ if cls is kind or issubclass(cls, units.Neuron)]
        assert all(any(name in vars(cls) for cls in saying) for name in base.MEMBERS), kind
    assert {cls for cls in below(Unit) if not below(cls)} <= set(KINDS) <= below(Unit)


def test_a_record_that_no_unit_is_made_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the plan is imported, by name; and in a network."""

    @dataclass(frozen=True, eq=False)
    class Bogus(dtd.Layer):
        """A record that the plan has forgotten."""

    with pytest.raises(dtd.LayerError, match="Bogus is not a record of dtdfast"):
        units.output_shape(Bogus(), (3,))
    monkeypatch.setitem(layers.RECORDS, "Bogus", Bogus)
    with pytest.raises(NotImplementedError, match="no unit is made of Bogus"):
        importlib.reload(units)
    with pytest.raises(dtd.LayerError, match="Bogus"):
        dtd.predict([Bogus()], np.ones((1, 3), np.float32), backend="oracle")


def test_every_record_has_a_recipe() -> None:
    assert RECIPES.keys() == set(layers.RECORDS.values())


def test_the_oracle_has_every_kind() -> None:
    assert oracle.FORWARD.keys() == set(KINDS)
    assert oracle.RELEVANCE.keys() == set(KINDS)


def test_every_record_and_every_rule_is_public() -> None:
    """But for the rule that only the drop-in of zennit gives."""
    assert layers.RECORDS.keys() <= {*dtd.__all__}
    assert {name for name, cls in vars(rules).items() if isinstance(cls, type) and issubclass(cls, dtd.Rule)} <= {
        *dtd.__all__,
        "Slope",
    }
