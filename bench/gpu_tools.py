"""What is timed on a GPU: dtdfast, and its rivals as tightly as PyTorch allows; each takes and leaves images in the
GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import dtdfast as dtd
import peers
from folding import folded
from handwritten import ZPlus
from nets import Net
from ours import Z_PLUS
from torch_reference import TorchNet

Run = Callable[[Tensor], Any]
TARGET = 0
PRECISIONS = ("float32", "tf32", "bfloat16")


@contextmanager
def tensor_cores(precision: str):  # type: ignore[no-untyped-def]
    """Let PyTorch round float32 operands to tf32, or not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision != "float32"
    cudnn.benchmark = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def ours(net: Net, precision: str) -> Run:
    explainer = dtd.Explainer(net.layers, **Z_PLUS, backend="cuda", precision=precision)
    return lambda x: explainer.explain(x, TARGET)


class _ZPlusOnGpu(ZPlus):
    def __init__(self, net: Net, dtype: torch.dtype) -> None:
        super().__init__(net)
        self.module.to("cuda", dtype)
        self.weights = {p: (a.to("cuda", dtype), b.to("cuda", dtype)) for p, (a, b) in self.weights.items()}
        self.dtype = dtype

    def run(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self._explain(x.to(self.dtype, memory_format=torch.channels_last), TARGET)


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def handwritten(net: Net, precision: str) -> Run:
    return _ZPlusOnGpu(folded(net), _dtype(precision)).run


def handwritten_graph(net: Net, precision: str) -> Run:
    """The same, captured once per batch shape as a CUDA graph."""
    made = _ZPlusOnGpu(folded(net), _dtype(precision))
    graphs: dict[torch.Size, tuple[Any, Tensor, Tensor]] = {}

    def run(x: Tensor) -> Tensor:
        if x.shape not in graphs:
            given = x.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):  # cuDNN chooses, memory is pooled
                    made.run(given)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                found = made.run(given)
            graphs.clear()
            graphs[x.shape] = graph, given, found
        graph, given, found = graphs[x.shape]
        given.copy_(x)
        graph.replay()
        return found

    return run


def zennit(net: Net, precision: str) -> Run:
    module = peers.zennit_module(net).to("cuda")
    return lambda x: peers.relevance_of(module, x, TARGET)


def forward(net: Net, precision: str) -> Run:
    """cuDNN's forward pass alone: no explanation, a yardstick."""
    module = TorchNet(folded(net)).to("cuda", _dtype(precision)).to(memory_format=torch.channels_last)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x.to(_dtype(precision), memory_format=torch.channels_last))

    return run


TOOLS: dict[str, Callable[[Net, str], Run]] = {
    "dtdfast": ours,
    "cuDNN forward": forward,
    "hand-written PyTorch": handwritten,
    "hand-written, CUDA graph": handwritten_graph,
    "zennit": zennit,
}
UNSUPPORTED = {("zennit", "bfloat16")}  # its stabiliser is below bfloat16's resolution


def milliseconds(run: Run, x: Tensor, seconds: float) -> list[float]:
    """Times of single calls by CUDA events, for about `seconds` and at least 5 calls, after 3 that warm up."""
    for _ in range(3):
        run(x)
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < 1e3 * seconds and len(times) < 200):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run(x)
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return times


def limits() -> dict[str, float]:
    """What the device does at best: TB/s of a copy (read and written), TFLOP/s of a matrix product by precision."""
    n = 8192
    result = {}
    block = torch.empty(2**30, dtype=torch.float32, device="cuda")
    other = torch.empty_like(block)
    result["copy TB/s"] = 2 * 4 * 2**30 / min(milliseconds(other.copy_, block, 0.2)) / 1e9
    del block, other
    for precision in PRECISIONS:
        with tensor_cores(precision):
            a, b = (torch.randn(n, n, device="cuda", dtype=_dtype(precision)) for _ in range(2))
            result[precision] = 2 * n**3 / min(milliseconds(lambda x, b=b: x @ b, a, 0.3)) / 1e9
    return result
