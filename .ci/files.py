#!/usr/bin/env python3
"""Fail when git tracks what does not belong into a repository: archives and built files, or a file over 1 MB."""

import subprocess
import sys
from pathlib import Path

ARCHIVES = (".whl", ".gz", ".zip", ".tar", ".xz", ".so", ".o", ".pyc")
LIMIT = 1_000_000  # bytes

tracked = [
    Path(p)
    for p in subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True).stdout.decode().split("\0")
    if p
]
wrong = [f"{p}: an archive or a built file" for p in tracked if p.suffix in ARCHIVES]
wrong += [
    f"{p}: {p.stat().st_size} bytes, at most {LIMIT}" for p in tracked if p.is_file() and p.stat().st_size > LIMIT
]
print(*(wrong or [f"{len(tracked)} tracked files, none of them out of place"]), sep="\n")
sys.exit(bool(wrong))
