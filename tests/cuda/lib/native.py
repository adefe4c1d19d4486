"""The words of `dtdfast.cuda.compile.language` for the host, compiled by numba: much faster than by Python itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import analysis, config
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from dtdfast.cuda.compile import language
from quicker import quicker

_cell = np.zeros(1, np.int64)  # the number of the thread that runs
CELL = _cell.ctypes.data

_LOW = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.uint8: ir.IntType(8),
    types.uint16: ir.IntType(16),
    types.int64: ir.IntType(64),
}


def _pointer(context: Any, builder: Any, at: Any, given: Any, kind: Any) -> Any:
    return builder.inttoptr(context.cast(builder, at, given, types.int64), ir.PointerType(_LOW[kind]))


def _loading(kind: Any, result: Any) -> Any:
    @intrinsic
    def load(typing: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(context, builder, args[0], signature.args[0], kind))
            return context.cast(builder, value, kind, result)

        return result(at), codegen

    return load


def _storing(kind: Any) -> Any:
    @intrinsic
    def store(typing: Any, at: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.cast(builder, args[1], signature.args[1], kind)
            builder.store(number, _pointer(context, builder, args[0], signature.args[0], kind))
            return context.get_dummy_value()

        return types.void(at, value), codegen

    return store


@intrinsic
def _load_bf16(typing: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        short = builder.load(_pointer(context, builder, args[0], signature.args[0], types.uint16))
        word = builder.shl(builder.zext(short, ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(word, ir.FloatType())

    return types.float32(at), codegen


@intrinsic
def _store_bf16(typing: Any, at: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        number = context.cast(builder, args[1], signature.args[1], types.float32)
        bits = builder.bitcast(number, word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.lshr(builder.add(builder.add(bits, word(0x7FFF)), odd), word(16))
        rounded = builder.select(builder.fcmp_unordered("uno", number, number), word(0x7FFF), rounded)
        builder.store(
            builder.trunc(rounded, ir.IntType(16)), _pointer(context, builder, args[0], signature.args[0], types.uint16)
        )
        return context.get_dummy_value()

    return types.void(at, value), codegen


load_long, store_long = _loading(types.int64, types.int64), _storing(types.int64)


# Kernels run for a moment each, so that compiling them is what takes time: nothing is inlined or wrapped for other
# callers.
inline = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@inline
def _item() -> Any:
    return load_long(CELL)


@inline
def _quotient_by(n: Any, magic: Any, shift: Any) -> Any:
    return (n * magic) >> shift


@inline
def _times(i: Any, stride: Any) -> Any:
    return i * stride


@inline
def _one_lane() -> Any:
    return 1


@inline
def _first_lane() -> Any:
    return 0


@inline
def _own(value: Any) -> Any:
    return value


@inline
def _wide(value: Any) -> Any:
    return np.float64(value)


@inline
def _single(value: Any) -> Any:
    return np.float32(value)


def _loading4(load: Any, size: int) -> Any:
    @inline
    def load4(at: Any) -> Any:
        assert at % (4 * size) == 0
        return load(at), load(at + size), load(at + 2 * size), load(at + 3 * size)

    return load4


def _storing4(store: Any, size: int) -> Any:
    @inline
    def store4(at: Any, a: Any, b: Any, c: Any, d: Any) -> None:
        assert at % (4 * size) == 0
        store(at, a), store(at + size, b), store(at + 2 * size, c), store(at + 3 * size, d)

    return store4


_load4_bf16, _store4_bf16 = _loading4(_load_bf16, 2), _storing4(_store_bf16, 2)


@inline
def _load8_bf16(at: Any) -> Any:
    assert at % 16 == 0
    return _load4_bf16(at) + _load4_bf16(at + 8)


@inline
def _store8_bf16(at: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> None:
    assert at % 16 == 0
    _store4_bf16(at, a, b, c, d), _store4_bf16(at + 8, e, f, g, h)


WORDS = {
    language.load4: _loading4(_loading(types.float32, types.float32), 4),
    language.load4_bf16: _load4_bf16,
    language.load8_bf16: _load8_bf16,
    language.load4_bytes: _loading4(_loading(types.uint8, types.int64), 1),
    language.store4: _storing4(_storing(types.float32), 4),
    language.store4_bf16: _store4_bf16,
    language.store8_bf16: _store8_bf16,
    language.store4_bytes: _storing4(_storing(types.uint8), 1),
    language.item: _item,
    language.line: _item,
    language.lane: _first_lane,
    language.lanes: _one_lane,
    language.sum_of_lanes: _own,
    language.largest_of_lanes: _own,
    language.wide: _wide,
    language.product: inline(language.product),
    language.single_product: inline(language.single_product),
    language.single: _single,
    language.quotient_by: _quotient_by,
    language.times: _times,
    language.load: _loading(types.float32, types.float32),
    language.load_bf16: _load_bf16,
    language.load_byte: _loading(types.uint8, types.int64),
    language.load_short: _loading(types.uint16, types.int64),
    language.load_long: load_long,
    language.load_wide: _loading(types.float64, types.float64),
    language.store: _storing(types.float32),
    language.store_wide: _storing(types.float64),
    language.store_bf16: _store_bf16,
    language.store_byte: _storing(types.uint8),
    language.store_short: _storing(types.uint16),
    language.store_long: store_long,
}


def loop(kernel: Any) -> Any:
    """Run a kernel's threads one after the other."""
    body = inline(kernel)

    @njit(error_model="numpy", no_cfunc_wrapper=True)
    def run(count: Any, a: Any, f: Any) -> None:
        for i in range(count):
            store_long(CELL, i)
            body(a, f)

    def quickly(count: int, a: Any, f: Any) -> None:
        # nor optimised; the level is shared with numba-cuda, so it is put back
        level, config.OPT = config.OPT, type(config.OPT)(0)
        try:
            with global_compiler_lock, quicker(types.Function, analysis):
                run(count, a, f)
        finally:
            config.OPT = level

    return quickly
