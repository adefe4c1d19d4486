"""What a GPU is asked first (gpu_jobs.py): versions, whether every kernel loads, whether anything runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import dtdfast as dtd
import nets
from dtdfast.cuda.compile.cache import DIGEST
from dtdfast.cuda.kernels import elementwise
from dtdfast.cuda.run import driver, strided
from dtdfast.cuda.run.strided import Strided


def versions(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    names = ("torch", "numba", "numba-cuda", "cuda-bindings", "numpy", "cffi", "zennit")
    found = {name: metadata.version(name) for name in names if _installed(name)}
    yield {"kind": "versions", "python": sys.version, **found, "dtdfast": dtd.build_config()}


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def kernels(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every kernel of the pack loaded: what its registers and local memory are, and how many blocks fit."""
    gpu, folder = driver.Gpu(0), Path(job["pack"])
    attributes = gpu._driver.CUfunction_attribute
    wanted = {
        "registers": attributes.CU_FUNC_ATTRIBUTE_NUM_REGS,
        "local": attributes.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
    }
    shared = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    rows, begin = [], time.perf_counter()
    with gpu._current():
        for entry in json.loads((folder / "manifest.json").read_text()):
            image = (folder / "kernels" / entry["file"]).read_bytes()[DIGEST:]
            module = gpu._call("cuModuleLoadData", image)
            function = gpu._call("cuModuleGetFunction", module, entry["name"].encode())
            row = {
                "kernel": entry["kernel"],
                **{k: gpu._call("cuFuncGetAttribute", a, function) for k, a in wanted.items()},
            }
            gpu._call("cuFuncSetAttribute", function, shared, entry["shared bytes"])
            row["blocks"] = gpu._call(
                "cuOccupancyMaxActiveBlocksPerMultiprocessor", function, entry["threads"], entry["shared bytes"]
            )
            rows.append({"kernel": entry["kernel"], **row, "wanted": entry["min blocks"]})
            gpu._call("cuModuleUnload", module)
    few = [row for row in rows if row["blocks"] < row["wanted"] or row["local"]]
    yield {
        "kind": "kernels", "loaded": len(rows), "seconds": time.perf_counter() - begin,
        "fewer blocks than wanted, or local memory": few, "right": all(row["blocks"] for row in rows),
    }  # fmt: skip


def smoke(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A fill, a graph and the default stream, then a contraction."""
    gpu = driver.open_device(0)
    made = np.zeros(1000, np.int64)
    address = gpu.allocate(made.nbytes)
    for stream, value in ((gpu.stream, 7), (0, 8)):
        view = Strided(address, (0, 0, 0, 0, 8, 0))
        launches = strided.launches((elementwise.fill_long,), (1, 1, 1, 1, 1000, 1), [view], (value,))
        graph = gpu.record(launches)
        gpu.replay(graph, stream)
        gpu.download(made, address, stream)
        gpu.synchronize(stream)
        yield {"kind": "smoke", "what": f"fill on stream {stream}", "right": bool((made == value).all())}
        gpu.discard(graph)
    gpu.release(address)
    net = nets.SMALL["digits_mlp"]()
    x = net.sample(3)
    found, expected = (dtd.explain(net.layers, x, 0, backend=b) for b in ("cuda", "cpu"))
    far = float(abs(found - expected).max() / abs(expected).max())
    yield {"kind": "smoke", "what": "digits MLP", "error": far, "right": far < 1e-4}
