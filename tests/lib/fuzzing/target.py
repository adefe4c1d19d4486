"""What a target of fuzzing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes
    ----------
    seeds : valid files
    read : reads a file's bytes within the working folder, which is empty
    mutated : a mutation of them
    modules : of dtdfast, that read it: paths below src/dtdfast
    more : further files, which take long to make
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], None]
    mutated: Callable[[bytes, Random], bytes]
    modules: tuple[str, ...]
    more: Callable[[], list[bytes]] = list


def held(name: str, data: bytes) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
