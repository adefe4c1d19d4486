"""Datasets in HDF5 files from anywhere: what is kept in other files is found in an object's header, before HDF5 opens
it, since its decoder of virtual layouts writes beyond its memory where they are damaged (HDF5 2.0).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from ..extras import require
from ..files import readable

LINKS = 32  # soft links that lead to another one
EXTERNAL_FILES, LAYOUT, CONTINUATION = 7, 8, 16  # messages of a header: HDF5 File Format Specification, IV.A.2
VIRTUAL = 3  # class of a layout
BLOCKS, BYTES = 64, 1 << 20  # of a header: the rest is not looked at


@contextmanager
def opened(path: str, *, external: bool) -> Iterator[Any]:
    """An HDF5 file, which takes no more memory than it has bytes, and is kept from those who would write it.

    With `external`, by HDF5's own way of reading, which alone follows the names of other files.
    """
    h5py = require("h5py", "run")
    if external:
        with h5py.File(path, "r") as file:
            yield file
        return
    with _Within(path) as raw:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, raw)
        with h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, access)) as file:
            yield file


class _Within(io.FileIO):
    """Refuses to read more than the file has: HDF5 makes room for what a damaged field says, fills it with zeros and
    looks then.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.size = os.fstat(self.fileno()).st_size
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(self, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as HDF5 does
            except BlockingIOError as error:
                raise BlockingIOError(error.errno, "somebody writes it") from None
            except OSError:  # a file system without locks
                pass

    def readinto(self, buffer: Any) -> int:
        """Bytes from here on, and zeros behind the end."""
        buffer = memoryview(buffer)
        if len(buffer) > self.size:
            raise OSError(f"{len(buffer)} bytes are asked of a file of {self.size}")
        count = 0
        while step := super().readinto(buffer[count:]):  # of at most 2 GiB
            count += step
        buffer[count:] = bytes(len(buffer) - count)
        return len(buffer)


def datasets(file: Any) -> list[str]:
    """Names of a file's datasets, one for each, without those over soft and external links."""
    h5py = require("h5py", "run")
    found: dict[int, str] = {}  # by address

    def visit(name: bytes, link: Any) -> None:
        if link.type == h5py.h5l.TYPE_HARD and link.u not in found:
            text = name.decode("utf-8", "surrogateescape")
            kinds = {kind for kind, _ in _messages(file, link.u)}
            if LAYOUT in kinds if kinds else isinstance(file.get(text), h5py.Dataset):
                found[link.u] = text

    file.id.links.visit(visit, info=True)
    return list(found.values())


def dataset_of(file: Any, name: str, *, external: bool) -> Any:
    """What has this name in an HDF5 file, or None.

    Raises
    ------
    InputError : it is kept in other files, which the file itself names: not unless `external`
    """
    h5py = require("h5py", "run")
    where = readable(str(file.filename))
    if not external:
        _check_way(h5py, file, name, where, depth=0)
    item = file.get(name)
    if not external and isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise _refusal(f"{where}:{name}", virtual=item.is_virtual)  # of a header that was not understood
    return item


def _check_way(h5py: Any, group: Any, name: str, where: str, depth: int) -> None:
    """Refuse a way to `name` that leaves the file, over soft links as well."""
    if depth > LINKS:
        raise InputError(f"{where}: its links lead in a circle")
    for part in name.split("/"):
        if part in ("", "."):  # means nothing to HDF5
            continue
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{where}:{name} is a link to {readable(str(link.filename))}, another file of this machine; allow it "
                "with --external, "
                "or name that file"
            )
        if isinstance(link, h5py.SoftLink):
            _check_way(h5py, group.file if link.path.startswith("/") else group, link.path, where, depth + 1)
        elif link is not None:
            address = group.id.links.get_info(part.encode("utf-8", "surrogateescape")).u
            for kind, data in _messages(group.file, address):
                virtual = kind == LAYOUT and data[0] > 2 and data[1] == VIRTUAL
                if virtual or kind == EXTERNAL_FILES:
                    raise _refusal(f"{where}:{name}", virtual=virtual)
        group = group.get(part) if link is not None else None


def _refusal(where: str, *, virtual: bool) -> InputError:
    kind = "a virtual dataset" if virtual else "a dataset in external files"
    return InputError(
        f"{where} is {kind}, which names other files of this machine; allow it with --external, or copy it into one "
        "file"
    )


def _messages(file: Any, address: int) -> Iterator[tuple[int, bytes]]:
    """(kind, data) of the messages of an object's header, of version 1 or 2; none from where it is damaged.

    Data is followed by zeros, at least to eight bytes.
    """
    of_address, of_size = file.id.get_create_plist().get_sizes()  # bytes of the numbers
    with Path(file.filename).open("rb") as raw:
        first = _read(raw, file.userblock_size + address, 40)
        if modern := first[:4] == b"OHDR":
            flags = first[5]
            start = 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
            stop = start + (1 << (flags & 3))
            blocks = [(address + stop, _number(first[start:stop]))]
            head, around = 4 + 2 * (flags >> 2 & 1), 4  # a continuation lies between its signature and its checksum
        else:
            blocks = [(address + 16, _number(first[8:12]))]
            head, around = 8, 0
        for number, (at, size) in enumerate(blocks):  # which grow on the way
            block = _read(raw, file.userblock_size + at, min(size, BYTES))
            if number:
                block = block[around : len(block) - around]
            while len(block) >= head:
                kind, length = (block[0], _number(block[1:3])) if modern else (_number(block[:2]), _number(block[2:4]))
                data, block = block[head : head + length].ljust(8, b"\0"), block[head + length :]
                yield kind, data
                if kind == CONTINUATION and len(blocks) < BLOCKS:
                    blocks.append((_number(data[:of_address]), _number(data[of_address : of_address + of_size])))


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _read(raw: BinaryIO, at: int, count: int) -> bytes:
    """Bytes from there on; zeros where the file ends."""
    if at >= 1 << 63:
        return bytes(count)
    raw.seek(at)
    return raw.read(count).ljust(count, b"\0")
