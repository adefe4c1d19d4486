"""Compiled kernels kept on disk, so that a process compiles only what no other did before it.

Machine code is good whatever made it, so the key holds the sources that a kernel follows from (sources.py) and the
major version of CUDA, which drivers go by, not the compilers: a folder that was filled elsewhere (bench/gpu_pack.py
fills one without a GPU) serves machines where nothing can be compiled.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import Any

from .dependent import FILE, Dependent, compile_kernel
from .kernel import Binary, Kernel
from .sources import code_of, needed

DIGEST = hashlib.sha256().digest_size  # bytes before the machine code


def folder() -> Path:
    """DTDFAST_CACHE, else dtdfast in the user's cache folder (XDG_CACHE_HOME or ~/.cache)."""
    given = os.environ.get("DTDFAST_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtdfast"


@cache
def _environment(modules: frozenset[str]) -> bytes:
    """What else decides whether a kernel's machine code can be used: CUDA, and the modules that it is made in."""
    digest = hashlib.sha256(metadata.version("cuda-bindings").partition(".")[0].encode())
    for path in needed(modules):
        digest.update(path.name.encode() + code_of(path))
    return digest.digest()


def _modules(value: Any) -> Iterator[str]:
    """Where the functions among a kernel's constants stand."""
    if isinstance(value, FunctionType):
        yield value.__module__
    if isinstance(value, tuple):
        for part in value:
            yield from _modules(part)


def _text(value: Any) -> str:
    """Constants of a kernel, the same in every process."""
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, tuple):
        return f"({','.join(map(_text, value))})"
    return repr(value)


def path_of(kernel: Kernel, cc: tuple[int, int]) -> Path:
    """Where a kernel's machine code is kept."""
    numbers = (kernel.n_integers, kernel.n_floats, kernel.threads, kernel.min_blocks, *cc)
    text = f"{kernel.name} {_text(kernel.factory)} {_text(kernel.constants)} {numbers}"
    modules = frozenset(_modules((kernel.factory, kernel.constants)))
    also = code_of(FILE) if isinstance(kernel, Dependent) else b""
    key = hashlib.sha256(_environment(modules) + also + text.encode()).hexdigest()
    return folder() / f"{kernel.name}-sm{cc[0]}{cc[1]}-{key[:40]}.cubin"


def _digest(path: Path, image: bytes) -> bytes:
    """Of machine code under its name: a file that is another kernel's is none."""
    return hashlib.sha256(path.name.encode() + image).digest()


def stored(kernel: Kernel, cc: tuple[int, int]) -> Binary | None:
    """What an earlier process compiled; None if there is nothing, or it is damaged or another kernel's."""
    path = path_of(kernel, cc)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, image = content[:DIGEST], content[DIGEST:]
    return Binary(image, kernel.name) if _digest(path, image) == digest else None


def compiled(
    kernel: Kernel, cc: tuple[int, int], compile_kernel: Callable[[Kernel, tuple[int, int]], Binary] = compile_kernel
) -> Binary:
    """Compile, and keep the result where the folder can be written."""
    binary = compile_kernel(kernel, cc)
    path = path_of(kernel, cc)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(path, binary.image) + binary.image)
            Path(name).replace(path)  # at once: other processes see all of it or nothing
        except OSError:
            Path(name).unlink(missing_ok=True)
    except OSError:
        pass  # a read-only home, a full disk: the kernel is compiled again next time
    return binary
