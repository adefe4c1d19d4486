"""Device memory of one Explainer: weights and constants uploaded once, and one arena that its plans share."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...packing import pack
from ...plan.steps import Weights
from .device import ALIGN, Device
from .staging import MOST

Array = NDArray[Any]


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


class Memory:
    """Allocations on one device, freed with the object.  Callers hold the Explainer's lock.

    contractions : the module that makes launches of contractions, and packs their weights
    """

    def __init__(self, device: Device, contractions: Any) -> None:
        self.device, self._contractions = device, contractions
        self._uploaded: dict[Hashable, int] = {}
        self._kept: list[Array] = []  # arrays whose ids are keys
        self._arena: tuple[int, int] | None = None  # address, bytes
        self.room = [MOST]  # for staging
        self._addresses: list[int] = []
        # at exit the process's memory goes by itself, and the driver may have gone before
        weakref.finalize(self, _release, device, self._addresses).atexit = False

    # ------------------------------------------------------------------------------------------------------ constants

    def _upload(self, key: Hashable, make: Callable[[], Array]) -> int:
        """The address of an array that is uploaded when its key is first seen."""
        if key not in self._uploaded:
            array = np.ascontiguousarray(make())
            address = self._allocate(max(1, array.nbytes))
            self.device.upload(address, array, self.device.stream)
            self.device.synchronize(self.device.stream)  # the array may go; and other streams may read from now on
            self._uploaded[key] = address
        return self._uploaded[key]

    def weights(self, weights: Weights) -> int:
        """Packed as the kernel that reads them wants it."""
        if weights.layout == "channel":
            return self._upload(("channel", *weights.key), lambda: pack(weights))
        return self._upload(
            ("contraction", self._contractions.packing_key(weights)), lambda: self._contractions.packing(weights)
        )

    def constant(self, array: Array) -> int:
        """An array of a plan: small ones by content, so that plans share them; large ones by identity."""
        if array.nbytes <= 2**16:
            return self._upload((array.dtype.str, array.tobytes()), lambda: array)
        key = ("array", id(array))
        if key not in self._uploaded:
            self._kept.append(array)
        return self._upload(key, lambda: array)

    # ---------------------------------------------------------------------------------------------------------- arena

    def arena(self, nbytes: int) -> int:
        """The address of at least so many bytes; a larger arena replaces the old one, and moves."""
        if self._arena is None or self._arena[1] < nbytes:
            self.drop_arena()
            self._arena = self._allocate(nbytes), nbytes
        return self._arena[0]

    def drop_arena(self) -> None:
        if self._arena is not None:
            self._addresses.remove(self._arena[0])
            self.device.release(self._arena[0])
            self._arena = None

    def _allocate(self, nbytes: int) -> int:
        address = self.device.allocate(nbytes)
        self._addresses.append(address)
        return address


def _release(device: Device, addresses: list[int]) -> None:
    for address in addresses:
        device.release(address)
