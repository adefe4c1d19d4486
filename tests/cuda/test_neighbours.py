"""Elements that a thread takes together: which steps allow it, in machine code 16 bytes at a time, and with the bits of
one element to a thread.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np
import pytest

import host
import on_gpu
from assembler import count, resources, workers
from device_memory import Memory
from dtdfast.cuda.kernels import elementwise
from dtdfast.cuda.kernels.strided import ABSENT, ALONG, STILL, kernel_of_elements
from dtdfast.cuda.run import strided
from dtdfast.cuda.run.launch import Launch
from dtdfast.cuda.run.strided import Strided, elements, neighbours

SIZES = {"f4": 4, "bf16": 2, "u1": 1}
SHAPE = (2, 16, 1, 3, 5, 1)


def channels_last(at: int, shape: tuple[int, ...] = SHAPE, dtype: str = "f4", more: int = 0) -> Strided:
    """With so many more channels, of which it does not see the last."""
    _, c, d, h, w, _ = shape
    s, c = SIZES[dtype], c + more
    return Strided(at, (s * c * d * h * w, s, s * c * h * w, s * c * w, s * c, 0), dtype=dtype)


def per_channel(at: int) -> Strided:
    return Strided(at, (0, 4, 0, 0, 0, 0))


def per_pixel(at: int) -> Strided:
    return Strided(at, (0, 0, 0, 20, 4, 0))


PLAIN = channels_last(4096)


@pytest.mark.parametrize(
    ("views", "together"),
    [
        ([PLAIN, PLAIN], 4),
        ([PLAIN, channels_last(4096, dtype="bf16")], 8),
        ([PLAIN, per_channel(256), per_pixel(260)], 4),
        ([PLAIN, channels_last(4096, more=4)], 4),
        ([channels_last(4096, dtype="bf16"), channels_last(4096, dtype="bf16", more=8)], 8),
        # 16 bytes that begin elsewhere
        ([PLAIN, channels_last(4100)], 1),
        ([PLAIN, channels_last(4096, more=2)], 1),
        ([PLAIN, channels_last(4096, dtype="bf16", more=4)], 1),
        ([PLAIN, per_channel(264)], 1),
        # not side by side, or of another type
        ([PLAIN, Strided(4096, (960, 60, 0, 20, 4, 0))], 1),
        ([PLAIN, channels_last(4096, dtype="u1")], 1),
    ],
)
def test_where_it_is_allowed(views: list[Strided], together: int) -> None:
    for n in (1, 2, 3, 64):  # whatever the batch
        assert neighbours((n, *SHAPE[1:]), views) == together


def test_a_rest() -> None:
    """Three channels of nine pixels are no fours, though four samples of them would be."""
    shape = (4, 3, 1, 3, 3, 1)
    views = [channels_last(4096, shape)] * 2
    assert strided._simplified([*shape], [list(v.strides) for v in views])[0] == [108]
    assert neighbours(shape, views) == 1


CASES = {  # function, operands' (type, what they are), longs, floats
    "move": ((elementwise.move,), [("f4", "plain")], (), ()),
    "to bfloat16": ((elementwise.move,), [("bf16", "plain")], (), ()),
    "multiply": ((elementwise.multiply, "times positive"), [("f4", "plain"), ("bf16", "wide")], (), (1.5,)),
    "by one of each pixel": ((elementwise.multiply, "times"), [("bf16", "plain"), ("f4", "pixel")], (), (1.0,)),
    "by nothing": ((elementwise.multiply, "none"), [("f4", "plain"), ("f4", "absent")], (), (2.0,)),
    "divide": ((elementwise.divide, "none"), [("f4", "plain"), ("f4", "wide")], (), ()),
    "affine": ((elementwise.affine,), [("f4", "plain"), ("f4", "channel"), ("f4", "channel")], (), ()),
    "activate": ((elementwise.activate, "silu", False, False), [("bf16", "plain"), ("f4", "absent")], (), (0.0, 0.0)),
    "slopes": ((elementwise.activate, "leaky_relu", False, True), [("f4", "plain"), ("f4", "channel")], (), (0.0,) * 2),
    "factor": (
        (elementwise.factor, "gate"),
        [("f4", "plain"), ("f4", "channel"), ("f4", "plain"), ("f4", "wide"), ("f4", "absent"), ("f4", "pixel"),
         ("f4", "absent")],
        (1,),
        (1.0, 1e-3),
    ),
}  # fmt: skip
VIEWS = {"plain": channels_last, "wide": lambda at, dtype: channels_last(at, dtype=dtype, more=8),
         "channel": lambda at, dtype: per_channel(at), "pixel": lambda at, dtype: per_pixel(at),
         "absent": lambda at, dtype: strided.ABSENT}  # fmt: skip


def aligned(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy that begins at a multiple of 256 bytes, as all memory of a device."""
    memory = np.zeros(values.nbytes + 256, np.uint8)
    start = -memory.ctypes.data % 256
    copy = memory[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


def run(launches: list[Launch], memory: Memory) -> None:
    for launch in launches:
        on_gpu.run(launch, memory) if on_gpu.WANTED else host.run_python(launch)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(name: str, accumulate: bool, rng: np.random.Generator, monkeypatch: Any) -> None:
    function, operands, longs, floats = CASES[name]
    arrays = [
        aligned((rng.standard_normal(2 * 24 * 15).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.uint16)
        if dtype == "bf16" else rng.standard_normal(2 * 24 * 15).astype(np.float32))
        for dtype, _ in [(operands[0][0] if name == "to bfloat16" else "f4", "plain"), *operands]
    ]  # fmt: skip
    dtypes = ["bf16" if a.dtype == np.uint16 else "f4" for a in arrays]
    whats = ["plain", *(what for _, what in operands)]
    memory = Memory()
    for array in arrays:
        memory.add(array.view(np.uint8))
    views = [
        strided.ABSENT if what == "absent" else VIEWS[what](array.ctypes.data, dtype=dtype)
        for what, array, dtype in zip(whats, arrays, dtypes, strict=True)
    ]
    before, found = arrays[0].copy(), []
    for wide in (True, False):
        arrays[0][:] = before
        with monkeypatch.context() as patch:
            if not wide:
                patch.setattr(strided, "neighbours", lambda *_: 1)
            made = elements(function, SHAPE, views, accumulate, longs, floats)
        assert (made[0].kernel.constants[-1] > 1) == wide
        assert made[0].integers[0] * made[0].kernel.constants[-1] == np.prod(SHAPE)
        run(made, memory)
        found.append(arrays[0].copy())
    assert not np.array_equal(found[0], before)
    assert np.array_equal(*found)


def test_a_wrong_alignment_is_found(rng: np.random.Generator, monkeypatch: Any) -> None:
    """On a GPU the launch would fail."""
    array = aligned(rng.standard_normal(2000).astype(np.float32))
    views = [channels_last(array.ctypes.data), channels_last(array.ctypes.data + 4004)]
    monkeypatch.setattr(strided, "neighbours", lambda *_: 4)
    with pytest.raises(AssertionError, match="is not a multiple of 16"):
        host.run_python(elements((elementwise.move,), SHAPE, views, False)[0])


# ------------------------------------------------------------------------------------------------------- machine code

WIDE: list[tuple[Any, ...]] = [  # arguments of kernel_of_elements, and how many of 16 bytes are loaded
    (elementwise.move, ("f4",) * 2, (), 2, 0, 0, (ALONG,), 4, 2),
    (elementwise.move, ("bf16", "f4"), (), 2, 0, 0, (ALONG,), 8, 3),
    (elementwise.multiply, ("f4",) * 3, ("times",), 3, 0, 1, (ALONG, ALONG), 4, 3),
    (elementwise.multiply, ("bf16",) * 3, ("times",), 3, 0, 1, (ALONG, STILL), 8, 2),
    (elementwise.divide, ("bf16", "f4", "bf16"), ("none",), 2, 0, 0, (ALONG, ALONG), 8, 4),
    (elementwise.map_input, ("f4",) * 3, ("x+",), 3, 0, 0, (ALONG, ABSENT), 4, 2),
    (elementwise.activate, ("f4",) * 3, ("gelu", False, False), 1, 0, 2, (ALONG, ABSENT), 4, 2),
    (elementwise.affine, ("f4",) * 4, (), 2, 0, 0, (ALONG, ALONG, ALONG), 4, 4),
    (elementwise.factor, ("f4",) * 8, ("gate",), 2, 1, 2, (ALONG, ALONG, ALONG, ABSENT, ABSENT, STILL, ABSENT), 4, 4),
]
REGISTERS = 80  # of a thread: three blocks of 256 on a multiprocessor


def test_machine_code() -> None:
    """All that moves along is loaded and stored 16 bytes at a time, what was there too; nothing spills, and a thread
    does for each of its elements the arithmetic of one element to a thread; where it divides, the rare part of the
    divisions is a function that all of them call.
    """
    kernels = [kernel_of_elements(*row[:-1]) for row in WIDE]
    singles = [kernel_of_elements(*k.constants[:-2], tuple(f.replace(STILL, ALONG) for f in k.constants[-2]), 1)
               for k in kernels]  # fmt: skip
    rows = list(workers().map(resources, [*kernels, *singles], repeat(True)))
    print()
    for (*_, loads), kernel, row, single in zip(WIDE, kernels, rows, rows[len(kernels) :], strict=False):
        code, together, numbers = row["code"], kernel.constants[-1], kernel.constants[1]
        found = row["targets"]["sm_90"]
        print(f"{kernel.name:12}{together} elements: {sum(code.values())} instructions, {found}; 1: "
              f"{sum(single['code'].values())}, {single['targets']['sm_90']}")  # fmt: skip
        assert found["local"] == 0, kernel
        assert found["registers"] <= REGISTERS, kernel
        still = sum(form == STILL for form in kernel.constants[-2])
        assert count(code, "LDG", "128") == loads == count(code, "LDG") - still, (kernel, code)
        stores = together * SIZES[numbers[0]] // 16
        assert count(code, "STG", "128") == stores == count(code, "STG"), (kernel, code)
        for name in () if count(code, "CALL") else ("FFMA", "FMUL", "FADD"):
            assert count(code, name) == together * count(single["code"], name), (kernel, name, code, single["code"])
        assert row["fused"]["f32"] == tuple(together * n for n in single["fused"]["f32"]), kernel
