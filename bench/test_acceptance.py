"""What this project promises about its speed and memory, asserted in one run beside zennit."""

from __future__ import annotations

import time

import torch

import memory
import nets
import peers
from machine import threads
from ours import dtdfast

ROUNDS = 4


def test_vgg16_with_4_images_is_faster_than_zennit() -> None:
    torch.set_num_threads(threads())
    net = nets.vgg16()
    images = net.sample(4, box=(0.0, 1.0))
    tools = {"dtdfast": dtdfast(net), "zennit": peers.zennit(net)}
    best = dict.fromkeys(tools, float("inf"))
    for _ in range(ROUNDS):  # in turns, so that both meet the same neighbours on the machine
        for name, run in tools.items():
            start = time.perf_counter()
            run(images, 0)
            best[name] = min(best[name], time.perf_counter() - start)
    print(", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in best.items()))
    assert best["dtdfast"] < best["zennit"]


def test_vgg16_with_4_images_needs_a_quarter_of_zennits_memory() -> None:
    peaks = {tool: memory.peak_beyond_weights(tool) for tool in ("dtdfast", "zennit")}
    print(", ".join(f"{tool} {peak / 2**20:.0f} MiB" for tool, peak in peaks.items()))
    assert peaks["dtdfast"] <= peaks["zennit"] / 4
