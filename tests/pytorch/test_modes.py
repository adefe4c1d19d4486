"""What PyTorch has once for a process or thread: drop-ins and importers leave it as it was, and depend on none."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch

import dtdfast as dtd
from dtdfast.compat import captum, lxt, quantus, zennit
from dtdfast.cpu.executor import isa_names, lib
from faults import error_at_line
from global_state import unchanged

torch.manual_seed(0)
X = torch.rand(2, 3, 6, 6)
WEIGHTS = {k: v.clone() for k, v in torch.nn.Conv2d(3, 4, 3, padding=1).state_dict().items()}
HEAD = {k: v.clone() for k, v in torch.nn.Linear(36, 5).state_dict().items()}


def model() -> torch.nn.Module:
    """A new one, which nobody has imported."""
    conv, head = (
        torch.nn.utils.skip_init(torch.nn.Conv2d, 3, 4, 3, padding=1),
        torch.nn.utils.skip_init(torch.nn.Linear, 36, 5),
    )
    conv.load_state_dict(WEIGHTS)
    head.load_state_dict(HEAD)
    return torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), head).eval()


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "explain": lambda net, x: dtd.explain(net, x, 1, rules="lrp-epsilon"),
    "from_torch": lambda net, x: dtd.explain(dtd.from_torch(net, x), x, 1, rules="lrp-epsilon"),
    "captum": lambda net, x: captum.LRP(net).attribute(x, target=1),
    "zennit": lambda net, x: zennit.Gradient(net, "epsilon_plus", lambda y: torch.ones_like(y))(x)[1],
    "lxt": lambda net, x: lxt.relevance(net, x, 1),
    "quantus": lambda net, x: torch.from_numpy(quantus.explain(net, x, [1] * len(x))),
}


@contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default type": lambda: default_dtype(torch.float64),
    "default device": lambda: torch.device("meta"),
}


@pytest.fixture(autouse=True, scope="module")
def _torch_has_exported() -> None:
    """Which sets a variable of its compiler's in the environment."""
    dtd.from_torch(model(), X)


@pytest.mark.parametrize("call", CALLS)
def test_the_process_is_as_it_was(call: str) -> None:
    bad = X.clone()
    bad[0, 0, 0, 0] = torch.nan
    for net, x in ((model(), X), (model(), bad), (model(), X[:, :2]), (model(), X.to_sparse()), (model().train(), X)):
        with unchanged(), suppress(dtd.DtdError):
            CALLS[call](net, x)


@pytest.mark.parametrize("call", ["from_torch", "captum"])
def test_the_process_is_as_it_was_after_ctrl_c(call: str) -> None:
    with unchanged():
        for line in range(1, 8000, 977):
            net = model()
            with suppress(KeyboardInterrupt), error_at_line(line, error=KeyboardInterrupt):
                CALLS[call](net, X)
            assert not any(part.training for part in net.modules())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_modes_of_pytorch_change_no_bit_of_this_call_or_the_next(call: str, mode: str) -> None:
    """Under autocast drop-ins gave maps in bfloat16, and went on to when it had ended."""
    expected, net = CALLS[call](model(), X), model()
    with MODES[mode]():
        within = CALLS[call](net, X)
    for found in (within, CALLS[call](net, X)):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_a_type_that_is_the_default_of_one_call_is_not_that_of_the_next() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.double().relu().to(torch.get_default_dtype()).flatten(1)

    net = Model().eval()
    with default_dtype(torch.float64):
        assert lxt.relevance(net, X).dtype == torch.float64
    assert lxt.relevance(net, X).dtype == torch.float32


def test_threads_that_import_at_the_same_time() -> None:
    """PyTorch exports on one thread at a time; the standard error, warnings and a switch of attention's were left as
    another thread had set them.
    """
    expected = dtd.explain(model(), X)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with unchanged("imports"), ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: dtd.explain(dtd.from_torch(model(), X), X), range(3)))
    finally:
        sys.setswitchinterval(interval)
    assert all(torch.equal(each, expected) for each in found)


def test_who_takes_the_standard_error_while_pytorch_exports_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    kept = []

    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            kept.append(sys.stderr)
            return x.relu()

    dtd.from_torch(Model().eval(), X)
    for stream in kept:
        print("seen", file=stream)
    assert capsys.readouterr().err == "seen\n" * len(kept)
    assert len(kept) > 2


@pytest.mark.parametrize("isa", [name for i, name in enumerate(isa_names()) if lib.dtd_isa_usable(i)])
def test_flushed_denormals_change_no_bit(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.set_flush_denormal is of the thread that calls, and the kernels' other threads do not have it."""
    monkeypatch.setenv("DTDFAST_ISA", isa)
    rng = np.random.default_rng(0)
    small = [rng.standard_normal((24, 24)).astype(np.float32) * np.float32(1e-19) for _ in range(2)]
    layers = [dtd.Linear(rng.standard_normal((24, 24))), dtd.ReLU(), *map(dtd.Linear, small)]
    x = rng.random((48, 24), np.float32)

    def found() -> set[bytes]:
        explainers = [dtd.Explainer(layers, n_threads=threads, backend="cpu") for threads in (1, 3)]
        return {e.explain(x).tobytes() for e in explainers} | {e.predict(x).tobytes() for e in explainers}

    expected = found()
    assert torch.set_flush_denormal(True)
    try:
        assert found() == expected
        assert np.float32(1e-30) * np.float32(1e-10) == 0  # the caller's own setting stays
    finally:
        torch.set_flush_denormal(False)
    assert found() == expected


def test_inputs_that_pytorch_takes_no_array_of() -> None:
    """Read-only ones, and of another byte order; and models of numbers that NumPy does not know."""
    x = X.numpy().copy()
    expected = quantus.explain(model(), x, [1, 1])
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (x, x.astype(">f4"), x[:, :, ::-1][:, :, ::-1]):
            np.testing.assert_array_equal(quantus.explain(model(), given, [1, 1]), expected)
    found = quantus.explain(model().bfloat16(), x)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("call", CALLS)
def test_modules_of_exported_programs(call: str) -> None:
    """They have no part for what has no weights, and no mode to be asked for."""
    program = torch.export.export(model(), (X,)).module()
    assert torch.equal(CALLS[call](program, X), CALLS[call](model(), X))
