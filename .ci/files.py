#!/usr/bin/env python3
"""Fail when git tracks an archive, a built file or one over 1 MB, or when the source distribution is over 1 MB, or is
not what git tracks of the top folder, and of src/ and csrc/, but for README.md.

Needs scikit-build-core (the extra `lint`), and no network.
"""

import subprocess
import sys
import tarfile
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from scikit_build_core.build import build_sdist

ARCHIVES = (".whl", ".gz", ".zip", ".tar", ".xz", ".so", ".o", ".pyc")
MADE = "PKG-INFO"  # by the build
LARGEST = 1_000_000  # bytes, of a file and of the distribution


def distributed() -> tuple[set[str], int]:
    """The files of the source distribution, and its size."""
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        path = Path(folder) / build_sdist(folder)
        with tarfile.open(path) as archive:
            return {member.name.partition("/")[2] for member in archive if member.isfile()}, path.stat().st_size


tracked = set(
    subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, text=True).stdout.split("\0")
) - {""}
wrong = [f"{p}: an archive or a built file" for p in sorted(tracked) if p.endswith(ARCHIVES)]
wrong += [
    f"{p}: {size} bytes, at most {LARGEST}"
    for p in sorted(tracked)
    if Path(p).is_file() and (size := Path(p).stat().st_size) > LARGEST
]
held, size = distributed()
wanted = {p for p in tracked if p.startswith(("src/", "csrc/")) and not p.endswith("/README.md")} | {MADE}
wanted |= {p for p in tracked if not (p.startswith(".") or "/" in p)}
wrong += [f"{p}: in the source distribution, but not tracked" for p in sorted(held - wanted)]
wrong += [f"{p}: not in the source distribution" for p in sorted(wanted - held)]
wrong += [f"source distribution: {size} bytes, at most {LARGEST}"] * (size > LARGEST)
print(*(wrong or [f"{len(tracked)} tracked files, {len(held)} in a source distribution of {size} bytes"]), sep="\n")
sys.exit(bool(wrong))
