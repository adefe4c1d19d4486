"""Which executors there are, which are usable here, and why not."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import BackendError


@dataclass(frozen=True)
class Backend:
    """An executor, and whether it can be used here.

    Attributes
    ----------
    name : str
        The name that the option `backend` takes.
    usable : bool
        Whether it runs here.
    reason : str
        Why it is not usable, or what it runs on.
    precisions : tuple of str
        The precisions that it has here.
    """

    name: str
    usable: bool
    reason: str
    precisions: tuple[str, ...] = ("float32",)


def _cpu() -> Backend:
    try:
        cpu = importlib.import_module("dtdfast.cpu.executor")
    except ImportError as error:
        return Backend(
            "cpu", False, f"the compiled kernels cannot be loaded ({error}); install with a C compiler at hand"
        )
    return Backend("cpu", True, f"instruction set {cpu.isa_name()}", cpu.precisions())


def _cuda() -> Backend:
    from .cuda.run.usable import survey

    problem, found = survey()
    return Backend("cuda", problem is None, problem or found, ("float32", "tf32", "bfloat16", "mixed"))


def _oracle() -> Backend:
    return Backend("oracle", True, "NumPy float64, the reference", ("float64",))


PRECISIONS = ("float32", "float64", "single", "tf32", "bfloat16", "mixed")

KNOWN: dict[str, Callable[[], Backend]] = {"cuda": _cuda, "cpu": _cpu, "oracle": _oracle}
"""In the order in which backend="auto" prefers them."""


def backends() -> dict[str, Backend]:
    """List the executors, in the order in which backend="auto" prefers them.

    Returns
    -------
    dict of str to Backend
        By name: whether each is usable here, and why not.
    """
    return {name: look() for name, look in KNOWN.items()}


def _first(precision: str) -> Backend:
    """The first usable executor that has this precision; where none has, the first usable one, which will say so."""
    first = None
    for look in KNOWN.values():
        if (found := look()).usable:
            first = first or found
            if precision in found.precisions:
                return found
    assert first is not None  # the oracle always is
    return first


def choose(backend: str, precision: str, device: Any) -> str:
    """The executor for these options; BackendError says why not."""
    if not isinstance(backend, str) or (backend != "auto" and backend not in KNOWN):
        raise BackendError(f"backend {backend!r} is not one of auto, {', '.join(KNOWN)}")
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r:.60} is not one of {', '.join(PRECISIONS)}")
    # only what is asked for is looked at: whoever wants the CPU does not start the CUDA driver
    chosen = KNOWN[backend]() if backend != "auto" else _first(precision)
    name = chosen.name
    if not chosen.usable:
        raise BackendError(f"backend {name!r} is not usable: {chosen.reason}")
    if precision != "float32" and precision not in chosen.precisions:
        raise BackendError(
            f"precision {precision!r} is not available on backend {name!r}, which computes in "
            f"{', '.join(chosen.precisions)}"
        )
    if device is not None and name != "cuda":
        raise BackendError(f"device={device!r} selects a GPU, but backend {name!r} runs on the CPU; leave device None")
    return name
