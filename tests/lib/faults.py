"""Faults on purpose: NumPy finds no memory, or a line of dtdfast does not."""

from __future__ import annotations

import ctypes
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import dtdfast as dtd

PACKAGE = f"{Path(dtd.__file__).parent}/"
GET_HANDLER, SET_HANDLER = 305, 304  # places of PyDataMem_GetHandler and PyDataMem_SetHandler in NumPy's table

pointer, size = ctypes.c_void_p, ctypes.c_size_t
SIGNATURES = (pointer, pointer, size), (pointer, pointer, size, size), (pointer, pointer, pointer, size)
NEW, ZEROED, RESIZED = (ctypes.CFUNCTYPE(*signature) for signature in SIGNATURES)


class Fault:
    """The `number`-th event is a fault; `events` counts them."""

    def __init__(self, number: int) -> None:
        self.number, self.events, self.where = number, 0, ""

    def due(self) -> bool:
        self.events += 1
        return self.events == self.number

    @property
    def happened(self) -> bool:
        return self.events >= self.number


# ------------------------------------------------------------------------------------------------------- NumPy's memory


class Handler(ctypes.Structure):
    """PyDataMem_Handler: where NumPy gets the memory of arrays from."""

    _fields_ = [
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", pointer),
        ("new", NEW),
        ("zeroed", ZEROED),
        ("resized", RESIZED),
        ("free", pointer),
    ]


class Memory:
    """NumPy's own memory, but for what `fault` says. It frees all, so that an array may outlive the fault."""

    def __init__(self) -> None:
        core = getattr(np, "_core", None) or np.core
        get = ctypes.PYFUNCTYPE(pointer, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
        make = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, ctypes.c_char_p, pointer)(
            ("PyCapsule_New", ctypes.pythonapi)
        )
        table = ctypes.cast(get(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(pointer))
        self.put = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])
        own = ctypes.PYFUNCTYPE(ctypes.py_object)(table[GET_HANDLER])()
        given = Handler.from_address(get(own, b"mem_handler"))
        functions = (ctypes.cast(f, pointer).value for f in (given.new, given.zeroed, given.resized))
        new, zeroed, resized = (  # which are called with the interpreter lock held, as NumPy calls them
            ctypes.PYFUNCTYPE(*signature)(function) for signature, function in zip(SIGNATURES, functions, strict=True)
        )
        self.fault: Fault | None = None
        self._handler = Handler(
            b"faults",
            given.version,
            given.context,
            NEW(lambda context, nbytes: None if self._due() else new(context, nbytes)),
            ZEROED(lambda context, n, each: None if self._due() else zeroed(context, n, each)),
            RESIZED(lambda context, old, nbytes: None if self._due() else resized(context, old, nbytes)),
            given.free,
        )
        self.capsule = make(ctypes.addressof(self._handler), b"mem_handler", None)

    def _due(self) -> bool:
        return self.fault is not None and self.fault.due()


@cache
def memory() -> Memory:
    return Memory()


@contextmanager
def no_memory(number: int) -> Iterator[Fault]:
    """NumPy's `number`-th array of this thread from here on finds no memory."""
    fault, known = Fault(number), memory()
    before = known.put(known.capsule)
    known.fault = fault
    try:
        yield fault
    finally:
        known.fault = None
        known.put(before)


# ---------------------------------------------------------------------------------------------------------------- lines


@contextmanager
def error_at_line(number: int, error: type[BaseException] = MemoryError, within: str = PACKAGE) -> Iterator[Fault]:
    """`error` before the `number`-th line that this thread runs in files `within`; but for lines that begin "with",
    where Python would not leave the block, and for functions without a name, such as those that weak references call.
    """
    fault = Fault(number)

    def enter(frame: FrameType, event: str, given: Any) -> Any:
        code = frame.f_code
        return line if code.co_filename.startswith(within) and code.co_name != "<lambda>" else None

    def line(frame: FrameType, event: str, given: Any) -> Any:
        if event == "line":
            path = frame.f_code.co_filename
            if not linecache.getline(path, frame.f_lineno).lstrip().startswith("with ") and fault.due():
                fault.where = f"{path.removeprefix(PACKAGE)}:{frame.f_lineno}"
                raise error("a fault on purpose")
        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield fault
    finally:
        sys.settrace(before)
