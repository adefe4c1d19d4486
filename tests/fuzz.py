"""Feeds mutated files to what reads files of strangers: fuzz.py TARGET [--minutes N] [--found FOLDER].

Guided by coverage where atheris is installed (pip install atheris), else blindly. What breaks the promise of
lib/fuzzing/ is kept in FOLDER, one file for each place in the sources, and the run goes on. A crash ends the
process that had it, and another one goes on. seeds/ holds what was found once; test_readers_fuzzed.py reads it again.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

try:
    import atheris
except ImportError:
    atheris = None

sys.path.insert(0, str(Path(__file__).parent / "lib"))
from fuzzing import TARGETS, target

os.environ.setdefault("DTDFAST_MEMORY", "256M")

SOURCES = Path(str(importlib.util.find_spec("dtdfast").origin)).parent  # those that run, wherever they lie
ADDRESSES = 6 << 30  # bytes: most of them what the interpreter and its libraries map
PATIENCE = 120  # seconds that a case may take on a busy machine
OFTEN = (1, 1, 1, 1, 1, 2)  # mutations of a file


def main() -> int:
    """Run one target to the end of its time, in as many processes as it needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=1.0, help="of processor time: other work takes none of it")
    parser.add_argument("--cases", type=int, default=0, help="end after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=Path("fuzzed"), help="folder of findings and corpus")
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--worker", choices=("cases", "lines"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    found = arguments.found = arguments.found.absolute()
    (found / "corpus").mkdir(parents=True, exist_ok=True)
    if arguments.worker:
        return Worker(arguments).work()
    cases, crashes = 0, 0
    while (left := 60 * arguments.minutes - _processor_time()) > 0 and not (arguments.cases and cases):
        for name in ("cases", "current"):
            (found / name).unlink(missing_ok=True)
        code = _worker(arguments, "cases", left, arguments.seed + crashes)
        if not (found / "current").exists():  # it did not begin
            return code
        cases += int((found / "cases").read_text())
        if code:
            crashes += 1
            kept = found / f"crash-{hashlib.sha1((found / 'current').read_bytes()).hexdigest()[:12]}"
            shutil.copy(found / "current", kept)
            print(f"crash with code {code}: {kept}", flush=True)
    took = _processor_time()
    if not arguments.cases:
        _worker(arguments, "lines", 0, 0)
    places = sorted(path.stem for path in found.glob("*.txt"))
    print(
        f"{arguments.target}: {cases} cases in {took / 60:.1f} minutes, {cases / took:.0f} per second, "
        f"{crashes} crashes, {len(places)} findings"
    )
    print(*places, sep="\n")
    return bool(places or crashes)


def _processor_time() -> float:
    """Seconds that the workers so far have had, user's and system's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _worker(arguments: argparse.Namespace, what: str, seconds: float, seed: int) -> int:
    command = [sys.executable, __file__, arguments.target, "--found", arguments.found, "--worker", what]
    limits = ["--minutes", str(seconds / 60), "--seed", str(seed), "--cases", str(arguments.cases)]
    return subprocess.run([*command, *limits, *["--blind"] * arguments.blind]).returncode


class Worker:
    """The cases of one process."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.found, self.corpus = arguments, arguments.found, arguments.found / "corpus"
        self.cases, self.ends = 0, {"right": 0, "refused": 0}
        self.until = 60 * arguments.minutes
        self.guided = atheris is not None and not arguments.blind and arguments.worker == "cases"
        if self.guided:
            with atheris.instrument_imports(include=["dtdfast"]):
                found = target(arguments.target)
        else:
            found = target(arguments.target)
        from dtdfast import DtdError
        from fuzzing.watch import Watch

        self.refusal, self.watch, self.target = DtdError, Watch(), found
        self.folder = Path(tempfile.mkdtemp())
        self.inner = self.folder / "inner"

    def work(self) -> int:
        try:
            if self.arguments.worker == "lines":
                self.lines()
                return 0
            self.begin()
            self.guide() if self.guided else self.wander()
        finally:
            self.end()
        return 0

    def end(self) -> None:
        if self.folder.exists():
            print(f"{self.cases} cases, {self.ends}", flush=True)
            os.chdir("/")
            shutil.rmtree(self.folder)

    def begin(self) -> None:
        """The files to begin with; they are sound before they are mutated."""
        self.enter()
        for seed in [*self.target.seeds(), *([] if self.arguments.cases else self.target.more())]:
            (self.corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
            self.case(seed)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        if pages * resource.getpagesize() < ADDRESSES:  # AddressSanitizer maps terabytes
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    def enter(self) -> None:
        shutil.rmtree(self.inner, ignore_errors=True)
        self.inner.mkdir(exist_ok=True)
        os.chdir(self.inner)

    def mutated(self, data: bytes, rng: Random) -> bytes:
        for _ in range(rng.choice(OFTEN)):
            data = self.target.mutated(data, rng)
        return data

    def wander(self) -> None:
        """Blindly, from the files to begin with and what was found before."""
        rng = Random(self.arguments.seed)
        files = [path.read_bytes() for path in sorted(self.corpus.iterdir())]
        while self.cases < self.arguments.cases if self.arguments.cases else time.process_time() < self.until:
            self.case(self.mutated(rng.choice(files), rng))

    def guide(self) -> None:
        """By libFuzzer, which keeps what reaches new lines; mutations are the target's, and sometimes its own."""

        def mutated(data: bytes, most: int, seed: int) -> bytes:
            rng = Random(seed)
            return bytes(atheris.Mutate(data, most)) if rng.random() < 0.05 else self.mutated(data, rng)[:most]

        options = {
            "runs": self.arguments.cases or -1,
            "seed": self.arguments.seed + 1,
            "timeout": PATIENCE,
            "max_len": 1 << 16,
            "rss_limit_mb": 0,
        }
        given = [f"-{key}={value}" for key, value in options.items()]
        atheris.Setup(["fuzz.py", *given, str(self.corpus)], self.case, custom_mutator=mutated)
        atexit.register(self.end)  # libFuzzer ends the process
        atheris.Fuzz()

    def case(self, data: bytes) -> None:
        """One reading, in an empty folder; what it did wrong is kept."""
        if self.guided and not self.arguments.cases and time.process_time() > self.until:
            self.end()
            os._exit(0)  # libFuzzer's own clock counts what other processes take
        self.cases += 1
        self.enter()
        (self.found / "cases").write_text(str(self.cases))
        (self.found / "current").write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of decoders
                self.watch.during(lambda: self.target.read(data), self.folder)
            self.ends["right"] += 1
        except self.refusal:
            self.ends["refused"] += 1
        except Exception as error:
            self.keep(error, data)

    def keep(self, error: Exception, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = ([f for f in frames if Path(f.filename).is_relative_to(SOURCES)] or frames)[-1]
        name = self.found / f"{Path(place.filename).stem}-{place.lineno}-{type(error).__name__}"
        if not name.exists():
            name.write_bytes(data)
            name.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))
            print(f"found {name.name}: {error!s:.200}", flush=True)

    def lines(self) -> None:
        """How many lines of the sources the corpus reaches."""
        from fuzzing.watch import lines_of, lines_reached

        paths = [p for module in self.target.modules for p in ([SOURCES / module, *(SOURCES / module).glob("**/*.py")])]
        known = {str(path): lines_of(path) for path in paths if path.suffix == ".py"}
        files = [path.read_bytes() for path in sorted(self.corpus.iterdir())]
        reached = lines_reached(lambda: [self.case(data) for data in files], known)
        count = sum(len(lines & reached[path]) for path, lines in known.items())
        print(f"{count} of {sum(map(len, known.values()))} lines of {', '.join(self.target.modules)} are reached")


if __name__ == "__main__":
    sys.exit(main())
