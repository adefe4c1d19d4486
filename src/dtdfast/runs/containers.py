"""Zarr arrays from anywhere: nothing in them may run code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InputError

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


def message(error: Exception) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
