"""Arrays in HDF5 and Zarr from anywhere: nothing in a file may make us read other files of this machine, or run
code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InputError
from ..extras import require
from ..files import readable

CODECS = frozenset(  # of Zarr; others may run code that a file brings (pickle), or are for texts
    [
        "bytes",
        "transpose",
        "sharding_indexed",
        "crc32c",
        "gzip",
        "zstd",
        "blosc",
        "zlib",
        "bz2",
        "lzma",
        "lz4",
        "delta",
        "shuffle",
        "bitround",
        "fixedscaleoffset",
        "quantize",
        "packbits",
        "astype",
        "crc32",
        "adler32",
        "fletcher32",
        "jenkins_lookup3",
        "pcodec",
        "zfpy",
    ]
)
UNCHECKED = "numcodecs.blosc"  # as format 3 names it where it is no codec of its own: blosc.py checks the others
LINKS = 32  # soft links that lead to another one


def check_codecs(array: Any) -> None:
    """Refuse a Zarr array whose chunks would be decoded by what is not known to be harmless."""
    for codec in _codecs(array.metadata.to_dict()):
        if codec not in CODECS:
            raise InputError(
                f"it is stored with the codec {codec!r:.40}, which is not read; store it with one of "
                f"{', '.join(sorted(CODECS))}"
            )


def _codecs(metadata: Any) -> Iterator[Any]:
    """Names of a Zarr array's codecs, format 3 and 2, those within sharding included."""
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        for codec in _listed(metadata.get(key)):
            name = str(codec.get("name", codec.get("id")))
            yield name if name == UNCHECKED else name.removeprefix("numcodecs.")
            if isinstance(codec.get("configuration"), Mapping):
                yield from _codecs(codec["configuration"])


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, Mapping) else list(value)


def dataset_of(file: Any, name: str, *, external: bool) -> Any:
    """What has this name in an HDF5 file, or None.

    Raises
    ------
    InputError : it is kept in other files, which the file itself names: not unless `external`
    """
    h5py = require("h5py", "run")
    where = readable(str(file.filename))
    if not external:
        _check_links(h5py, file, name, where, depth=0)
    item = file.get(name)
    if external or not isinstance(item, h5py.Dataset):
        return item
    if item.is_virtual or item.external:
        kind = "a virtual dataset" if item.is_virtual else "a dataset in external files"
        raise InputError(
            f"{where}:{name} is {kind}, which names other files of this machine; allow it with --external, or copy it "
            "into one file"
        )
    return item


def _check_links(h5py: Any, group: Any, name: str, where: str, depth: int) -> None:
    """Refuse a way to `name` that leaves the file, over soft links as well."""
    if depth > LINKS:
        raise InputError(f"{where}: its links lead in a circle")
    for part in name.strip("/").split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{where}:{name} is a link to {readable(str(link.filename))}, another file of this machine; allow it "
                "with --external, "
                "or name that file"
            )
        if isinstance(link, h5py.SoftLink):
            _check_links(h5py, group.file if link.path.startswith("/") else group, link.path, where, depth + 1)
        group = group.get(part) if link is not None else None


def message(error: Exception) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
