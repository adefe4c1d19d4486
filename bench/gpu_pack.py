"""What a rented GPU needs beside this repository's bench/ and tests/, where nothing can be compiled or installed from
afar: python bench/gpu_pack.py FOLDER [--references FILE] [--seconds N]; needs no GPU, but ".[cuda-test]" and an index.

FOLDER gets what bench/gpu_call.py reads:

    kernels/         machine code of every kernel that it will ask for; what the kernel cache (DTDFAST_CACHE) holds is
                     taken from there, and what is compiled here stays there
    manifest.json    names, threads and shared memory of these
    references.npz   FILE, else made by bench/gpu_references.py in some minutes
    wheels/          dtdfast and what it needs, for CPython 3.12 on Linux

What is asked for is found by asking, on a device on paper: the calls of gpu_jobs.py, and the tests on the device
(paper_tests.py).  What cannot be had is an error that names it.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import gpu_first
import tiles
from dtdfast.cuda.compile import cache as kept
from dtdfast.cuda.compile.dependent import Dependent
from dtdfast.cuda.compile.kernel import Kernel
from gpu import Clock, compile_everything, require
from gpu_call import GOAL_BATCHES, MANY_LAUNCHES, NETWORKS, ROOT, SKIPPED, TESTS
from gpu_jobs import PRECISIONS, checks, explainer, network, profile
from paper import PaperDevice, on_paper

BENCH = ROOT / "bench"
LIMIT = 40e6  # bytes
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
CARRIED = ("cffi", "pycparser", "greenlet", "zennit==1.0.0")
Shared = dict[Kernel, int]  # kernels, and the shared memory of their blocks in bytes


class PackError(Exception):
    """Something that a pack needs cannot be had."""


# ------------------------------------------------------------------------------------------------ what is asked for


def of_smoke() -> Shared:
    with on_paper() as device:
        for _ in gpu_first.smoke({}):
            pass
    return device.shared


def of_checks() -> Shared:
    with on_paper() as device:
        for check in checks():
            for precision in check.precisions:
                check.run("cuda", precision)
    return device.shared


def of_network(name: str) -> Shared:
    """Maps, and every step timed alone."""
    with on_paper() as device:
        net = network(name)
        for precision, n in product(PRECISIONS, GOAL_BATCHES):
            x = net.sample(n, box=(0.0, 1.0))
            explainer(net, precision).explain(x, 0)
            profile(net, precision, x)
    return device.shared


def of_dependent() -> Shared:
    """Of programmatic dependent launch, which a device on paper does not know."""
    with on_paper() as device:
        net = network(MANY_LAUNCHES)
        for precision in PRECISIONS:
            explainer(net, precision).explain(net.sample(1, box=(0.0, 1.0)), 0)
    return {Dependent(**vars(kernel)): nbytes for kernel, nbytes in device.shared.items()}


def of_tests(tests: Sequence[str] = TESTS) -> Shared:
    """Of the files that gpu_call.py runs."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "kernels"
        command = [sys.executable, "-O", "-m", "pytest", "-q", "-rf", "--tb=line", "-p", "paper_tests"]
        command += ["-p", "no:cacheprovider", "-k", SKIPPED, "--kernels", str(file), *tests]
        path = os.pathsep.join([str(BENCH), *filter(None, sys.path)])
        environment = {**os.environ, "DTDFAST_GPU": "1", "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": scratch}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if not file.exists():
            raise PackError(f"the kernels of the tests: pytest ended with {done.returncode}: {done.stdout[-2000:]}")
        print("\n".join(line[:200] for line in done.stdout.splitlines() if line.startswith("FAILED")), flush=True)
        print(f"tests on paper: {done.stdout.strip().splitlines()[-1]}", flush=True)
        found: Shared = pickle.loads(file.read_bytes())
    return found


def of_tiles() -> Shared:
    """Of every tile that bench/tiles.py tries on these networks."""
    with on_paper() as device:
        for name, n, precision in product(NETWORKS, tiles.BATCHES, PRECISIONS):
            tiles.compare(name, precision, n)
    return device.shared


def asked(with_tiles: bool) -> Iterator[tuple[str, Shared]]:
    yield "smoke", of_smoke()
    yield "checks", of_checks()
    yield "tests", of_tests()
    for name in NETWORKS:
        yield name, of_network(name)
    yield "dependent", of_dependent()
    if with_tiles:
        yield "tiles", of_tiles()


# ------------------------------------------------------------------------------------------------------------ parts


def pack_kernels(shared: Mapping[Kernel, int], folder: Path, clock: Clock) -> None:
    """Machine code and its manifest."""
    device = PaperDevice()
    device.kernels = dict.fromkeys(shared, 1)
    _, _, problems = compile_everything(device, clock)
    missing = [kernel for kernel in shared if kept.stored(kernel, device.capability) is None]
    if missing:
        why = problems[0][:500] if problems else "out of time; --seconds allows more, and those compiled are kept"
        raise PackError(f"{len(missing)} of {len(shared)} kernels are not compiled, {_named(missing[0])} first: {why}")
    (folder / "kernels").mkdir(parents=True)
    entries = []
    for kernel, nbytes in shared.items():
        path = kept.path_of(kernel, device.capability)
        shutil.copy(path, folder / "kernels")
        entries.append(
            {
                "file": path.name, "name": kernel.name, "kernel": _named(kernel), "threads": kernel.threads,
                "shared bytes": nbytes, "min blocks": kernel.min_blocks,
            }
        )  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(entries, indent=0))


def _named(kernel: Kernel) -> str:
    waits = "dependent " if isinstance(kernel, Dependent) else ""
    return f"{waits}{kernel.name} {kept._text(kernel.constants)}"


def pack_references(given: Path | None, file: Path) -> None:
    if given is None:
        _run([sys.executable, str(BENCH / "gpu_references.py"), str(file)], "references")
    else:
        require(given)
        shutil.copy(given, file)


def pack_wheels(given: Path | None, folder: Path, python: str = PYTHON) -> None:
    folder.mkdir(parents=True)
    pip, into = [sys.executable, "-m", "pip"], str(folder)
    if given is None:
        _run([*pip, "wheel", "--no-deps", "--wheel-dir", into, str(ROOT)], "a wheel of dtdfast")
    else:
        shutil.copy(given, folder)
    tags = ["--python-version", python, *(word for name in PLATFORMS for word in ("--platform", name))]
    for name in CARRIED:
        download = [*pip, "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", *tags]
        _run([*download, "--dest", into, name], f"a wheel of {name}")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PackError(f"{what} cannot be had: {(done.stderr or done.stdout).strip()[-2000:]}")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new or empty")
    parser.add_argument("--wheel", type=Path, help="dtdfast's own, such as a release has; else it is built here")
    parser.add_argument("--references", type=Path, help="maps of all checks, by bench/gpu_references.py")
    parser.add_argument("--seconds", type=float, default=7200, help="time allowed for compiling (%(default)s)")
    parser.add_argument("--tiles", action="store_true", help="kernels of bench/tiles.py too")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    try:
        pack_references(options.references, folder / "references.npz")
        pack_wheels(options.wheel, folder / "wheels")
        shared: Shared = {}
        for what, found in asked(options.tiles):
            new = len(found.keys() - shared.keys())
            shared |= {kernel: max(nbytes, shared.get(kernel, 0)) for kernel, nbytes in found.items()}
            print(f"{what}: {len(found)} kernels, {new} of them new", flush=True)
        begin = time.monotonic()
        pack_kernels(shared, folder, Clock(options.seconds))
        print(f"{len(shared)} kernels compiled or found in {kept.folder()}: {time.monotonic() - begin:.0f} s")
    except (PackError, OSError, ValueError) as problem:
        print(f"gpu_pack: {problem}", file=sys.stderr)
        return 1
    for part in sorted(folder.iterdir()):
        print(f"{part.name:16} {size(part) if part.is_dir() else part.stat().st_size:12,} bytes")
    total = size(folder)
    print(f"{'all':16} {total:12,} bytes, at most {LIMIT:,.0f}")
    return int(total > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
