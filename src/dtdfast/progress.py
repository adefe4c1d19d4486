"""A progress bar over the blocks of a batch."""

from __future__ import annotations

from collections.abc import Iterator

from .extras import require


def shown(blocks: list[slice], n: int) -> Iterator[slice]:
    """The blocks one after the other, while a bar shows how many of n samples are done."""
    with require("tqdm", "progress").tqdm(total=n, unit="sample") as bar:
        for block in blocks:
            yield block
            bar.update(block.stop - block.start)
