"""One batch on its way through a prepared plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.checks import Check, overflow
from ...arrays.device import device_array
from ...errors import InputError, NumericsError
from ...layers import Layer
from ...ledger.ledger import Row
from ...ledger.rows import rows_of_units
from ...session import Beside
from ...targets import Entry
from ...underflow import Rows, may_underflow
from .device import Device
from .prepared import FLAGS, GIVEN, LARGEST, NUMBERS, Entrance, Prepared

Array = NDArray[Any]


class CudaSession:
    """Uploads, graph launches, and one download at the end; nothing in between waits for the device."""

    def __init__(self, prepared: Prepared, device: Device, check: Check, beside: Beside) -> None:
        self.plan = prepared.plan
        self.prepared, self._device, self._check = prepared, device, check
        self._stream, self._beside = device.stream, beside
        self.inexact: Sequence[int] = ()  # nothing is checked here
        self.empty: Rows = ()
        self._flags: list[Array] = []  # of every pass
        self._waiting: list[Array] = []  # arrays that copies under way still read
        self._staged: set[str] = set()  # what goes through page-locked memory
        self._coming: list[tuple[Array, Array]] = []  # results, and where they will be there

    # ---------------------------------------------------------------------------------------------------------- calls

    def explain(self, x: Any, entry: Entry, result: Any, outputs: Any = None) -> None:
        """Relevance (n, t, *leaves) of x into `result`, the outputs (n, *out) into `outputs` if wanted."""
        plan = self.plan
        if not entry.settled:
            entry = entry.settle(self.forward(x))
            self._flags.clear()
        kind = GIVEN if entry.start is not None else LARGEST if entry.numbers is None else NUMBERS
        entrance = Entrance(kind, entry.unit, entry.clip)
        self._give_inputs(x)
        if entry.count <= plan.t:
            self._enter(entry, 0)
            self._replay("forward", entrance, "relevance")
            self._take(result, "result")
            self._take_flags()
        else:  # in chunks on one forward pass; their flags stay set
            self._replay("forward")
            for chunk in range(0, entry.count, plan.t):
                self._enter(entry, chunk)
                self._replay(*(["again"] if chunk else []), entrance, "relevance")
                self._take_chunk(result, chunk)
                self._take_flags()
        if outputs is not None:
            self._take(outputs, "outputs")
        self._finish(x, "relevance")
        found = np.concatenate([flags[len(FLAGS) :].reshape(plan.n, plan.t) for flags in self._flags], axis=1)[
            :, : entry.count
        ]
        self.empty = [(int(i), int(k)) for i, k in np.argwhere(found == 0)]
        if self.empty:
            values = self._fetch("outputs", (plan.n, *plan.program.network.output.shape))
            self.empty = may_underflow(self.empty, entry.start, values, entry.relevance(values))

    def forward(self, x: Any) -> Array:
        """Outputs (n, *out) of x, on the host."""
        outputs = np.empty((self.plan.n, *self.plan.program.network.output.shape), np.float32)
        self.predict(x, outputs)
        return outputs

    def predict(self, x: Any, outputs: Any) -> None:
        self._give_inputs(x)
        self._replay("forward")
        self._take(outputs, "outputs")
        self._take_flags()
        alone = not self.plan.program.relevant
        self._finish(x, "output" if alone else "")
        if alone:
            self.empty = [(int(i), 0) for i in np.flatnonzero(self._flags[-1][len(FLAGS) :] == 0)]

    def relevance(self, start: Array, result: Array) -> None:
        """Start (n, 1, *out) → result after `forward`."""
        self._give("start", np.ascontiguousarray(start, np.float32))
        self._replay("relevance")
        self._take(result, "result")
        self._wait()

    def rows(self, layers: list[Layer], u: float) -> list[Row]:
        book = self.plan.book
        assert book is not None
        sums = np.empty((self.plan.n, *book.buffer.shape))
        self._device.download(sums, self.prepared.at("ledger"), self._stream)
        self._device.synchronize(self._stream)
        return rows_of_units(book, sums, layers, u)

    # --------------------------------------------------------------------------------------------------------- pieces

    def _enter(self, entry: Entry, chunk: int) -> None:
        """Upload what says where relevance enters, for targets chunk … chunk + t − 1; those beyond the last get
        none.
        """
        plan = self.plan
        missing = max(0, chunk + plan.t - entry.count)
        if entry.start is not None:
            piece = np.asarray(entry.start[:, chunk : chunk + plan.t], np.float32)
            if entry.clip:
                piece = np.maximum(piece, 0)
            self._give("start", _filled(piece, missing, 0))
        elif entry.numbers is not None:
            piece = np.asarray(entry.numbers[:, chunk : chunk + plan.t], np.int64)
            self._give("numbers", _filled(piece, missing, -1))

    def _give_inputs(self, x: Any) -> None:
        self._give("x", x)
        for unit in self.plan.program.supplied:
            self._give(unit.external, self._beside[unit.name])

    def _give(self, name: str, array: Any) -> None:
        to, here = self.prepared.at(name), device_array(array)
        if here is not None:
            if here.device != self._device.number:
                raise InputError(
                    f"x lies on GPU {here.device}, but this Explainer computes on GPU {self._device.number}: "
                    f"make it with device={here.device}, or move x"
                )
            self._stream = here.stream  # x comes first, so nothing is queued on another
            self._device.copy(to, here.address, here.nbytes, self._stream)
            return
        array = np.ascontiguousarray(array)
        if self.prepared.staging.upload(name, array, to, self._stream):
            self._staged.add(name)
        else:
            self._waiting.append(array)
            self._device.upload(to, array, self._stream)

    def _take(self, into: Any, name: str) -> None:
        there = device_array(into)
        if there is not None:
            self._device.copy(there.address, self.prepared.at(name), there.nbytes, self._stream)
        elif into.flags.c_contiguous:
            place = self.prepared.staging.download(name, into.nbytes, self.prepared.at(name), self._stream)
            if place is not None:
                self._staged.add(name)
                self._coming.append((into, place))
            else:
                self._device.download(into, self.prepared.at(name), self._stream)
        else:
            into[...] = self._fetch(name, into.shape)

    def _take_chunk(self, result: Any, chunk: int) -> None:
        plan = self.plan
        count = min(plan.t, result.shape[1] - chunk)
        leaves = plan.program.leaves.shape
        there = device_array(result)
        if there is None:
            result[:, chunk : chunk + count] = self._fetch("result", (plan.n, plan.t, *leaves))[:, :count]
            return
        row = there.nbytes // (plan.n * result.shape[1])
        for n in range(plan.n):
            to, source = (
                there.address + (n * result.shape[1] + chunk) * row,
                self.prepared.at("result") + n * plan.t * row,
            )
            self._device.copy(to, source, count * row, self._stream)

    def _take_flags(self) -> None:
        flags = np.zeros(len(FLAGS) + self.plan.n * self.plan.t, np.int64)
        self._take(flags, "flags")
        self._flags.append(flags)

    def _fetch(self, name: str, shape: tuple[int, ...]) -> Array:
        array = np.empty(shape, np.float32)
        self._device.download(array, self.prepared.at(name), self._stream)
        self._device.synchronize(self._stream)
        return array

    def _replay(self, *parts: Any) -> None:
        self._device.replay(self.prepared.graph(parts), self._stream)

    def _wait(self) -> None:
        """For all that is under way."""
        self._device.synchronize(self._stream)
        for into, place in self._coming:
            into.reshape(-1).view(np.uint8)[:] = place
        self.prepared.staging.waited(self._staged)
        for each in (self._waiting, self._coming, self._staged):
            each.clear()

    def _finish(self, x: Any, what: str) -> None:
        """Wait, and say what the device found wrong."""
        self._wait()
        found = dict(zip(FLAGS, self._flags[-1], strict=False))
        if found["input"] or found["domain"]:
            self._check.refuse(x)
        if what and found[what]:
            raise NumericsError(overflow(what, "float32"))


def _filled(piece: Array, missing: int, value: int) -> Array:
    """With so many more targets of every sample."""
    if not missing:
        return piece
    return np.pad(piece, [(0, 0), (0, missing), *[(0, 0)] * (piece.ndim - 2)], constant_values=value)
