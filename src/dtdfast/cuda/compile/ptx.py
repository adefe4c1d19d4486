"""The instructions that kernels are written in, by name; the only module that imports numba's `cuda`.

Addresses are integers: 64-bit in global memory, 32-bit in shared memory. Values are float32 unless a name says
otherwise; `words` are 32 bits that only the instruction can read. The emulation in the tests has the same names in
Python. Fragments of `mma` and `ldmatrix` are those of NVIDIA's PTX ISA (sections "Matrix Fragments for mma.m16n8k8" and
"…m16n8k16"): lane = 4·g + t holds

    A (16 × 8 words)   rows g, g + 8 of column t, then the same of column t + 4
    B (8 words × 8)    rows t, t + 4 of column g
    C (16 × 8)         row g, columns 2t and 2t + 1, then row g + 8

Of `wgmma` warp w of four holds A and C of rows 16w … 16w + 15 likewise; C is several of these blocks side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from llvmlite import ir
from numba import cuda
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic

from . import language

_TYPES = {
    "f": (types.float32, ir.FloatType(), "f"),
    "i": (types.int32, ir.IntType(32), "r"),
    "r": (types.uint32, ir.IntType(32), "r"),
    "l": (types.int64, ir.IntType(64), "l"),
    "d": (types.float64, ir.DoubleType(), "d"),
}

# ------------------------------------------------------------------------------------------------ making an intrinsic


def _operand(context: Any, builder: Any, value: Any, given: Any, wanted: str) -> Any:
    """A numba value as the operand that an instruction wants; words and float32 keep their bits."""
    number, low, _ = _TYPES[wanted]
    if {given, number} == {types.float32, types.uint32}:
        return builder.bitcast(value, low)
    return context.cast(builder, value, given, number)


def _intrinsic(n_arguments: int, result: Any, codegen: Callable[..., Any]) -> Any:
    """numba reads the number of arguments off a function's signature, so each intrinsic needs a function of its own."""
    names = "".join(f", a{k}" for k in range(n_arguments))
    space = {"result": result, "codegen": codegen}
    exec(f"def typing(context{names}): return result({names[2:]}), codegen", space)
    return intrinsic(space["typing"])


def _instruction(text: str, outs: str = "", ins: str = "", *, memory: bool = False) -> Any:
    """An intrinsic that is one instruction of PTX.

    Parameters
    ----------
    text : $0, $1 … are its operands, results first
    outs, ins : a letter per operand: f float32, d float64, i an integer, r a word, l a 64-bit integer
    memory : touches memory, or must stay where it is
    """
    results = [_TYPES[o][0] for o in outs]
    lows = [_TYPES[o][1] for o in outs]
    result: Any = types.void if not outs else results[0] if len(outs) == 1 else types.UniTuple(results[0], len(outs))
    low: Any = ir.VoidType() if not outs else lows[0] if len(outs) == 1 else ir.LiteralStructType(lows)
    given = [_TYPES[letter][2] for letter in ins]
    constraints = ",".join(["=" + _TYPES[o][2] for o in outs] + given + ["~{memory}"] * memory)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [_operand(context, builder, v, t, w) for v, t, w in zip(args, signature.args, ins, strict=True)]
        function = ir.FunctionType(low, [_TYPES[i][1] for i in ins])
        called = builder.call(
            ir.InlineAsm(function, text, constraints, side_effect=memory), values, attrs=("convergent", "nounwind")
        )
        if not outs:
            return context.get_dummy_value()
        if len(outs) == 1:
            return called
        return context.make_tuple(builder, result, [builder.extract_value(called, k) for k in range(len(outs))])

    return _intrinsic(len(ins), result, codegen)


def text_of(
    function: Callable[..., None], n_integers: int, n_floats: int, cc: tuple[int, int], bounds: tuple[int, int]
) -> str:
    """A kernel's PTX; `bounds` are threads of a block, and blocks that must fit on a multiprocessor."""
    signature = (types.UniTuple(types.int64, n_integers), types.UniTuple(types.float32, n_floats))
    text: str = cuda.compile_ptx(function, signature, cc=cc, launch_bounds=bounds)[0]
    return text


# ---------------------------------------------------------------------------------------------- threads and registers

thread = _instruction("mov.u32 $0, %tid.x;", "i")
block_x = _instruction("mov.u32 $0, %ctaid.x;", "i")
block_y = _instruction("mov.u32 $0, %ctaid.y;", "i")
barrier = _instruction("bar.sync 0;", memory=True)
# what a warp does together asks that no branch has split it
warp_barrier = _instruction("bar.warp.sync 0xffffffff;", memory=True)
quotient = _instruction("div.u32 $0, $1, $2;", "i", "ii")  # of integers ≥ 0


def _register_array(low: Any, number: Any) -> Any:
    @intrinsic
    def registers(context, n):  # type: ignore[no-untyped-def]
        if not isinstance(n, types.IntegerLiteral):
            return None
        size = n.literal_value

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(low, size)), low.as_pointer())

        return types.CPointer(number)(n), codegen

    return registers


registers = _register_array(ir.FloatType(), types.float32)  # n of them; every index must become a constant
words = _register_array(ir.IntType(32), types.uint32)
integers = _register_array(ir.IntType(32), types.int32)

# ------------------------------------------------------------------------------------------------------------- memory

load = _instruction("ld.global.f32 $0, [$1];", "f", "l", memory=True)
load4 = _instruction("ld.global.v4.f32 {$0,$1,$2,$3}, [$4];", "ffff", "l", memory=True)
read = _instruction("ld.global.nc.f32 $0, [$1];", "f", "l")  # of what no kernel in flight writes
read4 = _instruction("ld.global.nc.v4.f32 {$0,$1,$2,$3}, [$4];", "ffff", "l")
read_int = _instruction("ld.global.nc.s32 $0, [$1];", "i", "l")
read_long = _instruction("ld.global.nc.s64 $0, [$1];", "l", "l")
load_bf16 = _instruction(
    "{.reg .b32 w; ld.global.u16 w, [$1]; shl.b32 w, w, 16; mov.b32 $0, w;}", "f", "l", memory=True
)
load_byte = _instruction("ld.global.u8 $0, [$1];", "i", "l", memory=True)
load_short = _instruction("ld.global.u16 $0, [$1];", "i", "l", memory=True)
store = _instruction("st.global.f32 [$0], $1;", "", "lf", memory=True)
store4 = _instruction("st.global.v4.f32 [$0], {$1,$2,$3,$4};", "", "lffff", memory=True)
store_bf16 = _instruction("{.reg .b16 t; cvt.rn.bf16.f32 t, $1; st.global.b16 [$0], t;}", "", "lf", memory=True)
load8_bf16 = _instruction(
    "{.reg .b32 w<8>; ld.global.v4.b32 {w0,w2,w4,w6}, [$8]; "
    + "".join(f"and.b32 w{k + 1}, w{k}, 0xFFFF0000; shl.b32 w{k}, w{k}, 16; " for k in (0, 2, 4, 6))
    + "".join(f"mov.b32 ${k}, w{k}; " for k in range(8)) + "}", "ffffffff", "l", memory=True,
)  # fmt: skip
store8_bf16 = _instruction(
    "{.reg .b32 w<4>; " + "".join(f"cvt.rn.bf16x2.f32 w{k}, ${2 * k + 2}, ${2 * k + 1}; " for k in range(4))
    + "st.global.v4.b32 [$0], {w0,w1,w2,w3};}", "", "lffffffff", memory=True,
)  # fmt: skip
load4_bf16 = _instruction(
    "{.reg .b32 v, w; ld.global.v2.b32 {v,w}, [$4]; shl.b32 $0, v, 16; and.b32 $1, v, 0xFFFF0000; shl.b32 $2, w, 16; "
    "and.b32 $3, w, 0xFFFF0000;}", "ffff", "l", memory=True,
)  # fmt: skip
store4_bf16 = _instruction(
    "{.reg .b32 v, w; cvt.rn.bf16x2.f32 v, $2, $1; cvt.rn.bf16x2.f32 w, $4, $3; st.global.v2.b32 [$0], {v,w};}",
    "", "lffff", memory=True,
)  # fmt: skip
store_byte = _instruction("st.global.u8 [$0], $1;", "", "li", memory=True)
store_short = _instruction("{.reg .b16 t; cvt.u16.u32 t, $1; st.global.b16 [$0], t;}", "", "li", memory=True)

shared_load = _instruction("ld.shared.f32 $0, [$1];", "f", "r", memory=True)
shared_load4 = _instruction("ld.shared.v4.f32 {$0,$1,$2,$3}, [$4];", "ffff", "r", memory=True)
shared_load_int = _instruction("ld.shared.s32 $0, [$1];", "i", "r", memory=True)
shared_store = _instruction("st.shared.f32 [$0], $1;", "", "rf", memory=True)
shared_store2 = _instruction("st.shared.v2.f32 [$0], {$1,$2};", "", "rff", memory=True)
shared_store4_words = _instruction("st.shared.v4.b32 [$0], {$1,$2,$3,$4};", "", "rrrrr", memory=True)
shared_store_int = _instruction("st.shared.s32 [$0], $1;", "", "ri", memory=True)

# the last operand bytes, then zeros
copy4 = _instruction("cp.async.ca.shared.global [$0], [$1], 4, $2;", "", "rlr", memory=True)
copy16 = _instruction("cp.async.cg.shared.global.L2::128B [$0], [$1], 16, $2;", "", "rlr", memory=True)
_COPY2 = (
    "{.reg .pred p; .reg .b16 t; setp.ne.s32 p, $2, 0; mov.b16 t, 0; @p ld.global.u16 t, [$1]; st.shared.b16 [$0], t;}"
)
copy2 = _instruction(_COPY2, "", "rli", memory=True)  # the same, but at once: no asynchronous copy is as short
copy_commit = _instruction("cp.async.commit_group;", memory=True)
# until n groups are under way
COPY_WAIT = tuple(_instruction(f"cp.async.wait_group {n};", memory=True) for n in range(8))


def _shared(align: int) -> Any:
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        name, module = "dtdfast_shared", builder.module
        if name not in module.globals:
            memory = cgutils.add_global_variable(module, ir.ArrayType(ir.IntType(8), 0), name, 3)
            memory.linkage, memory.align = "external", align
        return builder.ptrtoint(module.globals[name], ir.IntType(32))

    return _intrinsic(0, types.uint32, codegen)


shared, shared_1024 = _shared(16), _shared(1024)
"""Address of the block's dynamic shared memory, a multiple of that many bytes."""


# --------------------------------------------------------------------------------------------------------- arithmetic

times = _instruction("mul.wide.s32 $0, $1, $2;", "l", "ii")  # of two 32-bit integers, in 64 bits
fma = _instruction("fma.rn.f32 $0, $1, $2, $3;", "f", "fff")
positive = _instruction("max.f32 $0, $1, 0f00000000;", "f", "f")  # of a finite number: a NaN would become 0
# 0 where the second is 0; within 2 units in the last place, over all of float32 and without a branch
ratio = _instruction(
    "{.reg .pred p; .reg .f32 q; setp.eq.f32 p, $2, 0f00000000; div.full.f32 q, $1, $2; selp.f32 $0, 0f00000000, q, "
    "p;}", "f", "ff",
)  # fmt: skip
round_tf32 = _instruction("cvt.rna.tf32.f32 $0, $1;", "r", "f")
# the same as a number
high_tf32 = _instruction("{.reg .b32 t; cvt.rna.tf32.f32 t, $1; and.b32 $0, t, 0xFFFFE000;}", "f", "f")
word = _instruction("mov.b32 $0, $1;", "r", "f")
# finite likewise
round_positive_tf32 = _instruction("{.reg .f32 t; max.f32 t, $1, 0f00000000; cvt.rna.tf32.f32 $0, t;}", "r", "f")
pack_bf16 = _instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", "r", "ff")  # the first operand into the low half

low_bf16 = _instruction("{.reg .b32 w; shl.b32 w, $1, 16; mov.b32 $0, w;}", "f", "r")
high_bf16 = _instruction("{.reg .b32 w; and.b32 w, $1, 0xFFFF0000; mov.b32 $0, w;}", "f", "r")
positive_bf16 = _instruction("{.reg .b32 z; mov.b32 z, 0; max.bf16x2 $0, $1, z;}", "r", "r")  # of both halves

# ------------------------------------------------------------------------------------------------------- tensor cores


def _in_place(
    text: str, result: str, n_results: int, operands: Callable[..., list[Any]], n_arguments: int, letters: str,
    tied: dict[int, int], memory: bool = False,
) -> Any:  # fmt: skip
    """An intrinsic whose results (f float32, r words) go to `n_results` neighbours of a register array: f(array, index,
    …).

    operands : (context, builder, arguments after the first two, their types, results' old values) → values for
    `letters`
    """
    low, stays = ir.LiteralStructType([_TYPES[result][1]] * n_results), memory or not tied
    given = [str(tied.get(k, _TYPES[letter][2])) for k, letter in enumerate(letters)]
    constraints = ",".join(["=" + result] * n_results + given + ["~{memory}"] * stays)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = [_register(context, builder, args[0], args[1], signature.args[1], k) for k in range(n_results)]
        values = operands(context, builder, args[2:], signature.args[2:], places)
        function = ir.FunctionType(low, [_TYPES[i][1] for i in letters])
        called = builder.call(
            ir.InlineAsm(function, text, constraints, side_effect=stays), values, attrs=("convergent", "nounwind")
        )
        for k, place in enumerate(places):
            builder.store(builder.extract_value(called, k), place)
        return context.get_dummy_value()

    return _intrinsic(n_arguments, types.void, codegen)


def _register(context: Any, builder: Any, array: Any, index: Any, index_type: Any, k: int) -> Any:
    at = context.cast(builder, index, index_type, types.int64)
    return builder.gep(array, [builder.add(at, ir.IntType(64)(k))])


def _address(context: Any, builder: Any, args: Any, given: Any, places: Any) -> list[Any]:
    return [_operand(context, builder, args[0], given[0], "r")]


def _fragments(context: Any, builder: Any, args: Any, given: Any, places: Any) -> list[Any]:
    a = [builder.load(_register(context, builder, args[0], args[1], given[1], k)) for k in range(4)]
    b = [_operand(context, builder, v, t, "r") for v, t in zip(args[2:], given[2:], strict=True)]
    return [*a, *b, *(builder.load(p) for p in places)]


def _mma(shape: str, numbers: str) -> Any:
    text = (
        f"mma.sync.aligned.{shape}.row.col.f32.{numbers}.f32 {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, "
        f"{{$10,$11,$12,$13}};"
    )
    return _in_place(text, "f", 4, _fragments, 6, "rrrrrrffff", {6: 0, 7: 1, 8: 2, 9: 3})


def _ldmatrix(result: str, kind: str) -> Any:
    return _in_place(
        f"ldmatrix.sync.aligned.m8n8.x4{kind}.shared.b16 {{$0,$1,$2,$3}}, [$4];", result, 4, _address, 3, "r", {}
    )


ldmatrix = _ldmatrix("f", "")
"""ldmatrix(to, i, address): one word of each of four 8 × 4 matrices; lane l gives the address of row l mod 8 of matrix
l / 8."""
ldmatrix_words, ldmatrix_turned = _ldmatrix("r", ""), _ldmatrix("r", ".trans")
"""The same of 8 × 8 matrices of bfloat16, two neighbours of a row to a word, or ("turned") two neighbours of a
column."""
mma_tf32 = _mma("m16n8k8", "tf32.tf32")
"""mma(c, i, a, j, b0, b1): c[i … i+3] += a[j … j+3] · b, of register arrays c and words a."""
mma_bf16 = _mma("m16n8k16", "bf16.bf16")

# ------------------------------------------------------------------------------------------- warpgroups, sm_90a alone


@cache
def wgmma(numbers: str, pixels: int) -> Any:
    """f(c, i, a, j, low, high): c[i …] += a[j … j+3] · B, 64 × 16 and 16 × `pixels` of "bf16", or 8 in the place of 16
    of "tf32", some time until `wgmma_wait`; low and high are B's descriptor, the same for 128 threads.
    """
    n, depth, ending = pixels // 2, *((16, ", 0") if numbers == "bf16" else (8, ""))
    c, a = (",".join(f"${k}" for k in places) for places in (range(n), range(n, n + 4)))
    text = (
        f"{{.reg .b64 d; mov.b64 d, {{${n + 4}, ${n + 5}}}; wgmma.mma_async.sync.aligned.m64n{pixels}k{depth}.f32."
        f"{numbers}.{numbers} {{{c}}}, {{{a}}}, d, 1, 1, 1{ending};}}"
    )
    return _in_place(text, "f", n, _fragments, 6, "rrrrrr" + "f" * n, {6 + k: k for k in range(n)}, True)


def _passing(text: str, kind: str, n: int) -> Any:
    """An instruction f(array, i), and what n registers are before it has come about before."""
    same = {k: k for k in range(n)}
    return _in_place(text, kind, n, lambda c, b, _, __, old: [b.load(p) for p in old], 2, kind * n, same, True)


wgmma_fence = cache(partial(_passing, "wgmma.fence.sync.aligned;", "r"))
wgmma_wait = cache(partial(_passing, "wgmma.wait_group.sync.aligned 0;", "f"))
wgmma_commit = _instruction("wgmma.commit_group.sync.aligned;", memory=True)
# between what a thread wrote to shared memory and `wgmma`, which reads it in another way (PTX: the async proxy)
proxy_fence = _instruction("fence.proxy.async.shared::cta;", memory=True)


# ------------------------------------------------------------------------------- the words of language.py, translated

inline = cuda.jit(device=True, inline="always")
_ITEM = (
    "{.reg .u32 b, n, t; .reg .u64 w; mov.u32 b, %ctaid.x; mov.u32 n, %ntid.x; mov.u32 t, %tid.x; cvt.u64.u32 w, t; "
    "mad.wide.u32 w, b, n, w; "
)
# a value of the lane whose number differs by the last operand's bit
_EXCHANGE = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"
exchange = _instruction(_EXCHANGE, "f", "fi", memory=True)
exchange_wide = _instruction(
    "{.reg .b32 l, h; mov.b64 {l, h}, $1; shfl.sync.bfly.b32 l, l, $2, 31, 0xffffffff; "
    "shfl.sync.bfly.b32 h, h, $2, 31, 0xffffffff; mov.b64 $0, {l, h};}", "d", "di", memory=True,
)  # fmt: skip


def _lanes() -> int:
    return 32


def _sum_of_lanes(value: Any) -> Any:
    v = value + exchange_wide(value, 16)
    v = v + exchange_wide(v, 8)
    v = v + exchange_wide(v, 4)
    v = v + exchange_wide(v, 2)
    return v + exchange_wide(v, 1)


def _largest_of_lanes(value: Any) -> Any:
    other = exchange(value, 16)
    v = other if other > value else value
    other = exchange(v, 8)
    v = other if other > v else v
    other = exchange(v, 4)
    v = other if other > v else v
    other = exchange(v, 2)
    v = other if other > v else v
    other = exchange(v, 1)
    return other if other > v else v


WORDS = {
    language.line: _instruction(_ITEM + "shr.u64 $0, w, 5;}", "l"),  # a warp's
    language.lane: _instruction("{.reg .u32 t; mov.u32 t, %tid.x; and.b32 $0, t, 31;}", "i"),
    language.lanes: inline(_lanes),
    language.sum_of_lanes: inline(_sum_of_lanes),
    language.largest_of_lanes: inline(_largest_of_lanes),
    language.wide: _instruction("cvt.f64.f32 $0, $1;", "d", "f"),
    language.single: _instruction("cvt.rn.f32.f64 $0, $1;", "f", "d"),
    language.product: _instruction("mul.rn.f64 $0, $1, $2;", "d", "dd"),
    language.single_product: _instruction("mul.rn.f32 $0, $1, $2;", "f", "ff"),
    language.item: _instruction(_ITEM + "mov.u64 $0, w;}", "l"),
    language.quotient_by: _instruction("{.reg .u64 w; mul.wide.u32 w, $1, $2; shr.u64 $0, w, $3;}", "l", "iii"),
    language.times: times,
    language.load: load,
    language.load_bf16: load_bf16,
    language.load_byte: load_byte,
    language.load_short: load_short,
    language.load_long: read_long,
    language.load_wide: _instruction("ld.global.f64 $0, [$1];", "d", "l", memory=True),
    language.load4: load4,
    language.load4_bf16: load4_bf16,
    language.load8_bf16: load8_bf16,
    language.load4_bytes: _instruction("ld.global.v4.u8 {$0,$1,$2,$3}, [$4];", "iiii", "l", memory=True),
    language.store: store,
    language.store4: store4,
    language.store4_bf16: store4_bf16,
    language.store8_bf16: store8_bf16,
    language.store4_bytes: _instruction("st.global.v4.u8 [$0], {$1,$2,$3,$4};", "", "liiii", memory=True),
    language.store_wide: _instruction("st.global.f64 [$0], $1;", "", "ld", memory=True),
    language.store_bf16: store_bf16,
    language.store_byte: store_byte,
    language.store_short: store_short,
    language.store_long: _instruction("st.global.s64 [$0], $1;", "", "ll", memory=True),
}
