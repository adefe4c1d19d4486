"""A batch in blocks of samples, with a progress bar where one is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .extras import require


def blocks(n: int, size: int, progress: bool) -> Iterable[slice]:
    slices = [slice(i, min(i + size, n)) for i in range(0, n, size)]
    return _shown(slices, n) if progress else slices


def _shown(slices: list[slice], n: int) -> Iterator[slice]:
    """The blocks, with a progress bar."""
    with require("tqdm", "progress").tqdm(total=n, unit="sample") as bar:
        for block in slices:
            yield block
            bar.update(block.stop - block.start)
