"""Batches in pieces: threads take samples through all steps, and a map's bits are those of every other way."""

from __future__ import annotations

import numpy as np
import pytest

import dtdfast as dtd
import nets

pytestmark = pytest.mark.skipif("cpu" not in dtd.backends(), reason="no compiled kernels")

NETS = ("lenet5", "cnn", "text_cnn", "digits_mlp")


def _explainer(name: str, n_threads: int, **options: object) -> dtd.Explainer:
    return dtd.Explainer(getattr(nets, name)().layers, backend="cpu", n_threads=n_threads, **options)


def _pieces(explainer: dtd.Explainer, x: np.ndarray) -> int:
    return explainer.plan_for(x.shape).pieces


@pytest.mark.parametrize("rules", ["dtd", "epsilon-plus-flat"])
@pytest.mark.parametrize("name", NETS)
def test_bits_are_those_of_one_thread(name: str, rules: str) -> None:
    alone = _explainer(name, 1, rules=rules)
    counts = set()
    for n_threads in (2, 3, 4):
        explainer = _explainer(name, n_threads, rules=rules)
        for n in (1, 2, 4, 7, 8, 11):
            x = getattr(nets, name)().sample(n)
            counts.add((_pieces(explainer, x), n % n_threads != 0))
            np.testing.assert_array_equal(explainer.explain(x), alone.explain(x))
            np.testing.assert_array_equal(explainer.predict(x), alone.predict(x))
    assert len(counts) > 4  # one piece and several, even and uneven


def test_several_targets_in_pieces() -> None:
    explainer, x = _explainer("lenet5", 2), nets.lenet5().sample(7)
    assert _pieces(explainer, x) > 1
    targets = np.stack([np.arange(7) % 10, (np.arange(7) + 3) % 10], axis=1)
    together = explainer.explain(x, targets)
    for k in range(2):
        np.testing.assert_array_equal(together[:, k], _explainer("lenet5", 1).explain(x, targets[:, k]))


def test_ledger_of_a_batch_that_would_run_in_pieces() -> None:
    explainer, x = _explainer("lenet5", 2, domain="nonnegative"), nets.lenet5().sample(8)
    assert _pieces(explainer, x) > 1
    ledger = explainer.ledger(x, 0)
    np.testing.assert_array_equal(ledger.end, _explainer("lenet5", 1, domain="nonnegative").ledger(x, 0).end)


def test_when_pieces_pay() -> None:
    x = nets.lenet5().sample(64)
    assert _pieces(_explainer("lenet5", 1), x) == 1  # one thread has nobody to wait for
    assert _pieces(_explainer("lenet5", 2), x[:1]) == 1
    assert _pieces(_explainer("lenet5", 2), x[:3]) == 1  # 2 + 1: a thread would stand still for a quarter of the time
    assert _pieces(_explainer("lenet5", 2), x[:8]) == 2  # more of them would read the weights too often
    assert _pieces(_explainer("lenet5", 2), x) == 4
    assert _pieces(_explainer("lenet5", 16), x[:8]) == 1
    conv = dtd.Conv(np.ones((4, 4, 3, 3), np.float32), padding=1)
    # 5.5 MB, more than the cache holds, read for every piece
    heavy = [conv, dtd.Flatten(), dtd.Linear(np.broadcast_to(np.float32(1), (600, 4 * 24 * 24)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dtdfast.plan.batches.MACS_PER_BYTE", 1)
        patch.setattr("dtdfast.plan.batches.CACHED", 2**22)
        assert _pieces(dtd.Explainer(heavy, backend="cpu", n_threads=2), np.ones((2, 4, 24, 24), np.float32)) == 1
        assert _pieces(dtd.Explainer([conv], backend="cpu", n_threads=2), np.ones((2, 4, 24, 24), np.float32)) == 2
    wide = dtd.Explainer([dtd.Linear(np.ones((2048, 2048), np.float32))], backend="cpu", n_threads=2)
    assert _pieces(wide, np.ones((8, 2048))) == 1  # 16 MB of weights for 8 samples


def test_the_plan_says_so() -> None:
    text = str(_explainer("lenet5", 2).plan_for((8, 1, 28, 28)))
    assert "for 4 sample(s)" in text
    assert "2 such pieces of a batch side by side" in text
