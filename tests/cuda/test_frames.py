"""Borders cleared on a GPU: all of several frames, nothing else, and how many launches that takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import emulation
import gpu_jobs
from assembler import count, resources
from device_memory import Memory
from dtdfast.cuda.kernels import elementwise, strided
from dtdfast.cuda.run.launch import Launch
from dtdfast.cuda.run.operations import clear_borders
from dtdfast.plan.steps import SIZES, Buffer, Step, View
from paper import on_paper

BEFORE, BEHIND, ALIGN = 0x5A, 256, 256  # what memory holds, bytes behind each buffer, where it begins

BUFFERS = {  # shape, border, type, batch
    "an image": ((3, 5, 7), ((0, 0), (3, 2), (1, 3)), "f4", "n"),
    "a row": ((16, 9), ((0, 0), (0, 0), (4, 0)), "bf16", "n"),
    "one side": ((8, 4, 4), ((0, 0), (1, 0), (0, 0)), "bf16", "n"),
    "a volume": ((4, 3, 2, 5), ((1, 1), (0, 2), (2, 1)), "f4", "n"),
    "of targets": ((32, 3, 3), ((0, 0), (1, 1), (1, 1)), "bf16", "nt"),
    "long pieces": ((96, 2, 40), ((0, 0), (1, 1), (1, 1)), "f4", "nt"),
    "for all": ((5, 2, 2), ((0, 0), (1, 1), (1, 1)), "bf16", "1"),
}


@pytest.mark.parametrize("names", [list(BUFFERS), *([name] for name in BUFFERS)], ids="+".join)
def test_frames(names: list[str]) -> None:
    plan: Any = SimpleNamespace(n=2, t=3)
    buffers = [Buffer(n, s, batch, dtype, plain=False, border=b) for n in names for s, b, dtype, batch in [BUFFERS[n]]]
    top = 0
    for buffer in buffers:
        buffer.offset, top = top, -(-(top + buffer.nbytes(2, 3) + BEHIND) // ALIGN) * ALIGN
    arena, memory, kept = np.full(top + ALIGN, BEFORE, np.uint8), Memory(), []
    arena = arena[-arena.ctypes.data % ALIGN :][:top]

    def address_of(thing: Any) -> int:
        if isinstance(thing, View):
            return arena.ctypes.data + thing.buffer.offset + SIZES[thing.buffer.dtype] * thing.layout()[0]
        kept.append(thing)
        memory.add(thing.view(np.uint8).ravel())
        return int(thing.ctypes.data)

    memory.add(arena)
    launches = clear_borders([Step("CLEAR_BORDER", None, View(b)) for b in buffers], plan, address_of)
    assert len(launches) == len({b.batch for b in buffers})
    for launch in launches:
        emulation.run(launch, memory)
    expected = np.full(top, BEFORE, np.uint8)
    for buffer in buffers:
        samples = {"n": 2, "nt": 6, "1": 1}[buffer.batch]
        space = buffer.shape[1:]
        border = buffer.border[-len(space) :]
        whole = [b + s + a for s, (b, a) in zip(space, border, strict=True)]
        around = np.zeros((samples, *whole, buffer.shape[0] * SIZES[buffer.dtype]), np.uint8)
        inside = (slice(None), *(slice(b, b + s) for s, (b, _) in zip(space, border, strict=True)))
        around[inside] = BEFORE
        expected[buffer.offset : buffer.offset + around.size] = around.ravel()
    assert np.array_equal(arena, expected)


@pytest.mark.parametrize(("n", "most"), [(1, 2), (64, 4)])
def test_launches_of_resnet50(n: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """34 borders; one image had 192 launches, without those that add segments of sums."""
    net = gpu_jobs.network("ResNet-50")
    with on_paper() as device:
        graphs: list[list[Launch]] = []
        record = device.record
        monkeypatch.setattr(device, "record", lambda launches: (graphs.append(list(launches)), record(launches))[1])
        made = gpu_jobs.explainer(net, "bfloat16", batch_size=n)
        made.explain(net.sample(n, box=(0.0, 1.0)), 0)
        plan = made.plan_for((n, *net.input_shape))
    borders = sum(step.op == "CLEAR_BORDER" for step in (*plan.forward, *plan.relevance))
    names = [launch.kernel.name for launch in graphs[-1]]
    print(f"ResNet-50, {n} images: {len(names)} launches, {names.count('clear_border')} of them for {borders} borders")
    assert borders == 34
    assert names.count("clear_border") <= most
    assert len(names) - names.count("dtd_add_segments") <= 159 + most


def test_machine_code() -> None:
    """Frames whose pieces are multiples of 16 bytes are cleared 16 bytes at a time, and nothing spills."""
    row = resources(strided.kernel(elementwise.clear_border, ("f4", "f4"), (), 2, 1, 0, True), loaded=True)
    assert row["targets"]["sm_90"]["local"] == 0
    assert row["targets"]["sm_90"]["registers"] <= 32
    assert count(row["code"], "STG", "128") >= 1
    assert count(row["code"], "STG") == count(row["code"], "STG", "128") + count(row["code"], "STG", "U16")
