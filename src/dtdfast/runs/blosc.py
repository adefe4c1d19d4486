"""Zarr arrays opened such that chunks of Blosc are checked: its decoder reads as far as a chunk's own header says, also
beyond the chunk.
"""

from __future__ import annotations

import struct
from typing import Any

import numcodecs.blosc
import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.registry import register_codec

from .. import budget, locks
from ..errors import InputError
from ..locks import cached_property

HEADER = struct.Struct("<4B3I")  # versions, flags, size of an element; bytes unpacked, of a block, and of all


class CheckedBlosc(BloscCodec):
    """The codec of format 3, within shards as well."""

    @cached_property
    def _blosc_codec(self) -> Any:
        return _checked(super()._blosc_codec)


register_codec("blosc", CheckedBlosc)
OURS = {"codecs.blosc": f"{CheckedBlosc.__module__}.{CheckedBlosc.__qualname__}"}


def open_array(path: str) -> Any:
    """What `zarr.open_array` opens to be read."""
    with locks.SHARED, zarr.config.set(OURS):
        array = zarr.open_array(path, mode="r")
    for codec in (getattr(array.metadata, "compressor", None), *(getattr(array.metadata, "filters", None) or ())):
        if isinstance(codec, numcodecs.blosc.Blosc):  # of format 2
            _checked(codec)
    return array


def _checked(codec: Any) -> Any:
    """The codec, which then refuses chunks whose header is wrong."""
    decode = codec.decode

    def decoded(chunk: Any, out: Any = None) -> Any:
        given = np.frombuffer(chunk, np.uint8)
        *_, unpacked, _, whole = HEADER.unpack(given[: HEADER.size].tobytes().ljust(HEADER.size, b"\0"))
        if whole != given.size:
            raise InputError(f"a chunk of Blosc has {given.size} bytes, its header says {whole}")
        budget.require(unpacked, "a chunk of Blosc")
        return decode(chunk, out)

    codec.decode = decoded
    return codec
