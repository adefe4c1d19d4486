"""A batch in blocks, with a progress bar where one is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def blocks(n: int, size: int, progress: bool) -> Iterable[slice]:
    """A batch of n samples in blocks of so many."""
    every = [slice(0, n)] if n <= size else [slice(i, min(i + size, n)) for i in range(0, n, size)]
    return shown(every, n) if progress else every


def shown(every: list[slice], n: int) -> Iterator[slice]:
    """The blocks one after the other, while a bar shows how many of n samples are done."""
    from .extras import require

    with require("tqdm", "progress").tqdm(total=n, unit="sample") as bar:
        for block in every:
            yield block
            bar.update(block.stop - block.start)
