"""Mixed calls for as long as is asked: every result has the bits of the first of its kind, and memory stays flat.

python bench/soak.py --minutes 60

A kind is a network with a rule, a precision and a target. It is called in many ways which may change no bit: by
`explain` and by an Explainer, on 1 to 3 threads, sample by sample, with a ledger, into `out`, from several threads at
once, pickled, from a file. Between these calls there are calls that fail; then the kind of error and its text are the
result. Resident memory is read every minute, when what is kept for later calls has been let go of; it counts from a
quarter of the time on. All memory is the C library's, which can give it back: Python's own allocator keeps what it had
at its peak. Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "lib"))

import dtdfast as dtd
import nets
from dtdfast import baselines
from dtdfast.presets import PRESETS
from memory import resident, settled

N_BATCH = 3
N_KINDS = 150
THREADS = (1, 1, 1, 2, 3)
ALLOCATOR = {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"}
FLAT = 0.02
"""How far resident memory may be from its median, as a share of it."""

PRECISIONS = ("float32", "float64", "single", "bfloat16", "mixed")
TARGETS = ("largest", "one", "each", "several", "start", "against")


class Kind(NamedTuple):
    """What has one map."""

    network: str
    rules: str
    precision: str
    target: str


class Case:
    """A kind with its network, its samples and what the Explainer is told."""

    def __init__(self, kind: Kind, networks: dict[str, nets.Net]) -> None:
        self.kind, self.net = kind, networks[kind.network]
        self.layers, self.x = self.net.layers, self.net.sample(N_BATCH)
        boxed = kind.rules in ("epsilon-gamma-box", "deep_taylor.bounded")
        self.options: dict[str, Any] = {
            "rules": kind.rules,
            "precision": kind.precision,
            "domain": self.net.box if boxed else "real",
            "backend": "cpu",
        }
        self.target, self.several = self._target(), kind.target == "several"

    def _target(self) -> Any:
        out, last = self.net.output_shape, self.net.output_shape[0] - 1
        if self.kind.target == "start":
            return np.linspace(0, 1, N_BATCH * int(np.prod(out)), dtype=np.float32).reshape(N_BATCH, *out)
        if len(out) > 1:
            return self.net.target or (0,) * len(out)
        return {
            "largest": None,
            "one": last,
            "each": np.arange(N_BATCH) % out[0],
            "several": np.array([[0, last]]),
            "against": dtd.Contrast(None, "rest"),
        }[self.kind.target]

    def of(self, i: int) -> Any:
        """The target of sample i alone."""
        shared = self.several or not isinstance(self.target, np.ndarray)
        return self.target if shared else self.target[i : i + 1]

    def explainer(self) -> dtd.Explainer:
        return dtd.Explainer(self.layers, n_threads=random.choice(THREADS), **self.options)


# ----------------------------------------------------------------------- ways to the same bits, and others of their own


def called(case: Case) -> Any:
    return dtd.explain(case.layers, case.x, case.target, n_threads=random.choice(THREADS), **case.options)


def by_an_explainer(case: Case) -> Any:
    return case.explainer().explain(case.x, case.target)


def alone(case: Case) -> Any:
    explainer = case.explainer()
    return np.concatenate([explainer.explain(case.x[i : i + 1], case.of(i)) for i in range(N_BATCH)])


def in_passes(case: Case) -> Any:
    return dtd.Explainer(case.layers, batch_size=2, **case.options).explain(case.x, case.target)


def into_out(case: Case) -> Any:
    explainer = case.explainer()
    first = explainer.explain(case.x, case.target)
    out = np.empty((*first.shape[:-1], 2 * first.shape[-1]), first.dtype)[..., ::2]
    return explainer.explain(case.x, case.target, out=out)


def with_outputs(case: Case) -> Any:
    return case.explainer().explain(case.x, case.target, return_outputs=True)[0]


def with_a_ledger(case: Case) -> Any:
    if case.several:
        return called(case)
    return case.explainer().explain(case.x, case.target, return_ledger=True)[0]


def side_by_side(case: Case) -> Any:
    explainer = case.explainer()
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(lambda _: explainer.explain(case.x, case.target), range(3))
    if any(other.tobytes() != first.tobytes() for other in others):
        raise AssertionError("threads that share an Explainer have different bits")
    return first


def pickled(case: Case) -> Any:
    return pickle.loads(pickle.dumps(case.explainer())).explain(case.x, case.target)


def from_a_file(case: Case) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        dtd.save(case.layers, path)
        return dtd.explain(path, case.x, case.target, **case.options)


def predicted(case: Case) -> Any:
    return dtd.predict(case.layers, case.x, backend="cpu", n_threads=random.choice(THREADS))


def ledger(case: Case) -> Any:
    return str(case.explainer().ledger(case.x, case.target))


def plan(case: Case) -> Any:
    return str(dtd.Explainer(case.layers, n_threads=1, **case.options).plan_for(case.x.shape))


def gradient(case: Case) -> Any:
    return baselines.gradient(case.layers, case.x, case.target, backend="cpu")


def infinite(case: Case) -> Any:
    x = case.x.astype(np.float32)
    x.flat[-1] = np.inf
    return dtd.explain(case.layers, x, case.target, **case.options)


def of_a_wrong_shape(case: Case) -> Any:
    return case.explainer().explain(case.x[..., :-1], case.target)


def of_no_such_target(case: Case) -> Any:
    return case.explainer().explain(case.x, 10**6)


def of_no_such_rule(case: Case) -> Any:
    return dtd.explain(case.layers, case.x, **case.options | {"rules": {len(case.layers): "dtd"}})


def broken(case: Case) -> Any:
    layers = [*case.layers, dtd.Linear(np.ones((2, 123_457), np.float32))]
    return dtd.explain(layers, case.x, **case.options)


SAME: tuple[Callable[[Case], Any], ...] = (
    called, by_an_explainer, alone, in_passes, into_out, with_outputs, with_a_ledger, side_by_side, pickled,
    from_a_file,
)  # fmt: skip
OTHERS = (
    predicted, ledger, plan, gradient, infinite, of_a_wrong_shape, of_no_such_target, of_no_such_rule, broken,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the soak


def result_of(way: Callable[[Case], Any], case: Case) -> str:
    """What a call gave, as a short text: a hash of bits, or the kind of error and its text."""
    try:
        found = way(case)
    except dtd.DtdError as refused:
        return f"{type(refused).__name__}: {refused}"
    if isinstance(found, str):
        return hashlib.blake2b(found.encode(), digest_size=16).hexdigest()
    return f"{found.dtype} {found.shape} {hashlib.blake2b(found.tobytes(), digest_size=16).hexdigest()}"


@contextmanager
def told(case: Case, way: Callable[[Case], Any]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        print(f"in {case.kind}, {way.__name__}", file=sys.stderr)
        raise


class Soak:
    """Calls and what came of them."""

    def __init__(self, networks: dict[str, nets.Net], seed: int) -> None:
        self.networks = networks
        random.seed(seed)
        every = [Kind(*names) for names in product(networks, PRESETS, PRECISIONS, TARGETS)]
        self.kinds = random.sample(every, min(N_KINDS, len(every)))
        self.calls = self.refused = self.repeated = 0
        self.first: dict[tuple[Kind, str], str] = {}
        self.differing: list[str] = []

    def call(self) -> None:
        """One call, drawn."""
        kind, way = random.choice(self.kinds), random.choice(SAME if random.random() < 0.7 else OTHERS)
        case = Case(kind, self.networks)
        with told(case, way):
            found = result_of(way, case)
        key = kind, "relevance" if way in SAME else way.__name__
        self.calls += 1
        self.refused += "Error: " in found
        self.repeated += key in self.first
        expected = self.first.setdefault(key, found)
        if found != expected:
            self.differing.append(f"{kind}, {way.__name__}: {found}, the first time {expected}")
            print(self.differing[-1], flush=True)


def at_rest() -> int:
    """Resident bytes when nothing is kept for later calls, and the allocator gave back what it could."""
    dtd.clear_cache()
    return settled()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="*", choices=nets.SMALL, default=list(nets.SMALL))
    arguments = parser.parse_args()
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    soak = Soak({name: nets.SMALL[name]() for name in arguments.networks}, arguments.seed)
    begin = time.monotonic()
    end, pause = begin + 60 * arguments.minutes, min(60.0, 60 * arguments.minutes / 20)
    readings: list[tuple[float, int]] = []
    while time.monotonic() < end:
        wake = time.monotonic() + pause
        while time.monotonic() < min(wake, end):
            soak.call()
        busy = resident()
        readings.append((time.monotonic() - begin, at_rest()))
        print(
            f"{readings[-1][0] / 60:7.2f} min {soak.calls:8,} calls, {soak.refused:,} refused, {len(soak.first):,} "
            f"kinds, {soak.repeated:,} repeated; {readings[-1][1] / 2**20:.1f} MiB at rest, {busy / 2**20:.1f} busy",
            flush=True,
        )
    rest = [nbytes for at, nbytes in readings if at > (end - begin) / 4]
    middle = median(rest)
    off = max(abs(nbytes / middle - 1) for nbytes in rest)
    print(
        f"{soak.calls:,} calls of {len(soak.first):,} kinds, {len(soak.differing)} with other bits; "
        f"{middle / 2**20:.1f} MiB, within {100 * off:.2f} %, at the end {100 * (rest[-1] / rest[0] - 1):+.2f} %"
    )
    sys.exit(bool(soak.differing) or off > FLAT)


if __name__ == "__main__":
    main()
