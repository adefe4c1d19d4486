"""A batch in blocks, with a progress bar where one is wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any


def blocks(n: int, size: int, progress: bool) -> Iterable[slice]:
    """A batch of n samples in blocks of so many."""
    every = [slice(0, n)] if n <= size else [slice(i, min(i + size, n)) for i in range(0, n, size)]
    return shown(every, n) if progress else every


def shown(every: list[slice], n: int) -> Iterator[slice]:
    """The blocks one after the other, while a bar shows how many of n samples are done."""
    with bar(total=n, unit="sample") as line:
        for block in every:
            yield block
            line.update(block.stop - block.start)


def bar(*items: Any, **options: Any) -> Any:
    """A progress bar of tqdm; it shows nothing where the standard error is closed."""
    from .extras import require

    return require("tqdm", "progress").tqdm(
        *items, disable=getattr(sys.stderr, "closed", sys.stderr is None), **options
    )
