"""What bench/gpu.py compares a GPU's maps with: python bench/gpu_references.py FILE.npz; needs no GPU, two minutes.

The oracle's maps, and how far from them others are: in float32 the CPU, and the oracle with weights a few roundings
off; in the narrow precisions a host that follows the CUDA backend's plan and rounds operands as that does
(tests/cuda/lib).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "cuda" / "lib"))

import dtdfast as dtd
import reference
from dtdfast.cuda.run import driver, executor, usable
from gpu_jobs import NETS, PRECISIONS, SEED, Check, Reference, checks, errors, fingerprint, network, write_references
from host import HostDevice
from nets import Net
from ours import Z_PLUS

ROUNDINGS = 2.0**-20
"""Of weights at random; in a sum of hundreds of terms that is a rounding or two of float32.  It shows what rules that
cancel and pools with near ties make of them."""


@contextmanager
def rounding_host(compiled: bool) -> Iterator[None]:
    """Make backend="cuda" compute on the host, every contraction with operands as its unit rounds them, the other
    kernels compiled or, which begins sooner, by Python.
    """
    device = HostDevice(2**33, compiled=compiled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usable, "survey", lambda: (None, "the host"))
        patch.setattr(driver, "open_device", lambda number: device)
        patch.setattr(executor, "contraction", reference)
        yield


def reference_of(
    net: Net, x: Any, explain: Callable[[Net, str, str], Any], precisions: Iterable[str], compiled: bool
) -> Reference:
    """`explain` has the map of x by a network, on a backend, in a precision."""
    exact = explain(net, "oracle", "float32")
    alike = [explain(net.perturbed(ROUNDINGS, seed), "oracle", "float32") for seed in range(2)]
    usual = {"float32": np.max([errors(found, exact) for found in (explain(net, "cpu", "float32"), *alike)], axis=0)}
    with rounding_host(compiled):
        usual |= {p: errors(explain(net, "cuda", p), exact) for p in precisions if p != "float32"}
    return Reference(exact, usual, fingerprint(net, x))


def of_check(check: Check) -> Reference:
    def explain(net: Net, backend: str, precision: str) -> Any:
        return replace(check, net=net).run(backend, precision)

    return reference_of(check.net, check.x, explain, check.precisions, compiled=False)


def of_network(net: Net, compiled: bool = True) -> Reference:
    """Of one image."""
    x = net.sample(1, SEED, box=(0.0, 1.0))

    def explain(net: Net, backend: str, precision: str) -> Any:
        return dtd.explain(net.layers, x, 0, **Z_PLUS, backend=backend, precision=precision)

    return reference_of(net, x, explain, PRECISIONS, compiled)


def all_references() -> Iterator[tuple[str, Reference]]:
    for check in checks():
        yield check.what, of_check(check)
    for name in NETS:
        yield name, of_network(network(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    references = {}
    for name, made in all_references():
        references[name] = made
        found = "; ".join(f"{p} {whole:.1e}, worst piece {worst:.1e}" for p, (whole, worst) in made.usual.items())
        print(f"{name:36} {found}", flush=True)
    write_references(file, references)
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
