"""Faults planted in kernels, or in what is underneath them: the tests of contractions find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import emulation
import test_attention_kernels
import test_dense
from dtdfast.cuda.run import tiles
from support import LONG

Test = Callable[[np.random.Generator], None]


def oblong(test: Test) -> Test:
    """With that tile, whose four stages are all in use, the first of them by the last step too."""

    def run(rng: np.random.Generator) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiles, "choose", lambda *_: tiles.NAMED["oblong"])
            test(rng)

    return run


def by_wgmma(test: Test) -> Test:
    """With that unit turned on."""

    def run(rng: np.random.Generator) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiles, "USE_WGMMA", True)
            test(rng)

    return run


TESTS: dict[str, Test] = {
    "bf16": oblong(lambda rng: test_dense.test_neuron("even", "bf16", rng)),
    "bf16, transposed": oblong(lambda rng: test_dense.test_scatter("even back", "bf16", rng)),
    "bf16_wgmma": by_wgmma(lambda rng: test_dense.test_scatter("even", "bf16_wgmma", rng)),
    "tf32x3": lambda rng: test_dense.test_neuron("aligned groups", "tf32x3", rng),
    "fma": lambda rng: test_dense.test_multipliers("times", rng),
    "matmul": lambda rng: test_attention_kernels.test_matmul(3),
}


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Kernels keep the instructions that they were made with."""
    emulation.function_of.cache_clear()
    yield
    emulation.function_of.cache_clear()


def found(test: Test) -> str:
    """What the test says of the fault; "" if it passes."""
    try:
        test(np.random.default_rng(0))
    except AssertionError as error:
        return str(error) or "wrong"
    return ""


class Without:
    """An instruction that does nothing when a thread comes to it for the `number`-th time."""

    def __init__(self, name: str, number: int) -> None:
        self.right, self.number, self.missed = getattr(emulation, name), number, False

    def __call__(self) -> None:
        thread = emulation._S.current.__dict__
        thread["calls"] = thread.get("calls", -1) + 1
        if thread["calls"] == self.number:
            self.missed = True
        else:
            self.right()


@pytest.mark.parametrize("name", TESTS if LONG else ["bf16", "fma"])
def test_each_barrier_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it threads race.  Only before the first tiles of a product of matrices there is nothing to wait for."""
    said = []
    while True:
        barrier = Without("barrier", len(said))
        with monkeypatch.context() as patch:
            patch.setattr(emulation, "barrier", barrier)
            found_now = found(TESTS[name])
        if not barrier.missed:
            assert not found_now
            break
        said.append(found_now)
    assert len(said) >= 4
    assert all(said[name == "matmul" :]), said
    # the first one stands before addresses, and reading too early shows as NaN
    assert sum("no barrier between" in text for text in said) >= len(said) - 2, said


@pytest.mark.parametrize(
    ("name", "said"), [("proxy_fence", "with no proxy fence since"), ("wgmma_commit", "used while wgmma is in flight")]
)
def test_wgmma_without(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other rules: test_warpgroups.py."""
    monkeypatch.setattr(emulation, name, lambda: None)
    assert said in found(TESTS["bf16_wgmma"])


def test_a_copy_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One group more may be under way than the kernel thinks."""
    monkeypatch.setattr(emulation, "COPY_WAIT", emulation.COPY_WAIT[1:])
    assert found(TESTS["bf16"])


def test_a_commit_before_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """So each tile belongs to the group of the next one."""

    def commit() -> None:
        thread = emulation._S.current
        now, thread.copies[-1] = thread.copies[-1], thread.__dict__.get("late", [])
        thread.__dict__["late"] = now
        thread.copies.append([])

    monkeypatch.setattr(emulation, "copy_commit", commit)
    assert found(TESTS["bf16"])


@pytest.mark.parametrize(("kind", "lane"), [("ldmatrix words", 0), ("ldmatrix turned", 13), ("bf16", 31)])
def test_a_lane_with_a_column_of_another(kind: str, lane: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what it loads, or of what it gives to and gets from the tensor core: the lane beside it has that column."""
    right = emulation._COLLECTIVES[kind]

    def wrong(operands: list[Any]) -> list[Any]:
        results = right(operands)
        return [results[lane ^ 1] if place == lane else result for place, result in enumerate(results)]

    monkeypatch.setitem(emulation._COLLECTIVES, kind, wrong)
    assert "off by" in found(TESTS["bf16, transposed"])


@pytest.mark.parametrize(("name", "number"), [("bf16", 0), ("bf16", 4), ("bf16, transposed", 0)])
def test_a_tile_of_zeros(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, whose tolerance is wide: what a block copies in step `number` is zeros, 64 terms of 576 in the last
    one.
    """
    right = emulation.copy16

    def copy(to: int, source: int, n_bytes: int) -> None:
        zeroed = emulation._S.current.__dict__.get("commits", 0) == number
        right(to, source, 0 if zeroed else n_bytes)

    def commit() -> None:
        thread = emulation._S.current.__dict__
        thread["commits"] = thread.get("commits", 0) + 1
        right_commit()

    right_commit = emulation.copy_commit
    monkeypatch.setattr(emulation, "copy16", copy)
    monkeypatch.setattr(emulation, "copy_commit", commit)
    assert "off by" in found(TESTS[name])
