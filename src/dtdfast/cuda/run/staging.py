"""Page-locked memory of the host, through which the arrays of one plan go: a device copies from and to it at the pace
of the bus while the host goes on, and waits for other memory at every copy.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .device import Device

Array = NDArray[Any]

MOST = 2**28
"""Bytes for all plans of one Explainer; what does not fit is copied as it is."""

PIECE = 2**22
"""Bytes that the host copies while the device fetches those before."""


class Staging:
    """A place for each array that goes in or comes out, locked when it is first needed.

    Parameters
    ----------
    room : bytes left of MOST, one number that the plans of an Explainer share
    """

    def __init__(self, device: Device, room: list[int]) -> None:
        self._device, self._room = device, room
        self._places: dict[str, Array] = {}
        self._busy: set[str] = set()  # whose place a copy under way may read or write
        weakref.finalize(self, _unlock, device, room, self._places).atexit = False  # as Memory's

    def _place(self, name: str, nbytes: int) -> Array | None:
        if name in self._busy:
            return None
        if name not in self._places:
            if not 0 < nbytes <= self._room[0]:
                return None
            address = self._device.lock(nbytes)
            if not address:
                self._room[0] = 0  # so that it is not asked again
                return None
            self._room[0] -= nbytes
            self._places[name] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        place = self._places[name]
        if place.nbytes != nbytes:
            return None
        self._busy.add(name)
        return place

    def upload(self, name: str, array: Array, address: int, stream: int) -> bool:
        """Host → device through the place of this name, if there is one; the array may change afterwards."""
        place, source = self._place(name, array.nbytes), array.reshape(-1).view(np.uint8)
        if place is None:
            return False
        for start in range(0, array.nbytes, PIECE):
            piece = place[start : start + PIECE]
            piece[:] = source[start : start + PIECE]
            self._device.upload(address + start, piece, stream)
        return True

    def download(self, name: str, nbytes: int, address: int, stream: int) -> Array | None:
        """Device → the place of this name, if there is one; its bytes once the stream has been waited for."""
        place = self._place(name, nbytes)
        if place is not None:
            self._device.download(place, address, stream)
        return place

    def waited(self, names: set[str]) -> None:
        """No copy of these is under way."""
        self._busy -= names


def _unlock(device: Device, room: list[int], places: dict[str, Array]) -> None:
    for place in places.values():
        room[0] += place.nbytes
        device.unlock(place.ctypes.data)
