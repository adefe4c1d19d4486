"""A GPU, through NVIDIA's driver."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from numpy.typing import NDArray

from ...errors import BackendError
from ...extras import require
from ..compile import cache, parallel
from ..compile.compiler import HOPPER
from ..compile.dependent import Dependent
from ..compile.kernel import Kernel
from .device import Device, OutOfMemory
from .launch import Launch
from .usable import CAPABILITY, dotted

Array = NDArray[Any]

TIMED = 10  # repetitions in a graph that is timed
PLAIN_SHARED_BYTES = 48 * 1024  # a block's shared memory that needs no leave
DEPENDENT = False
"""Whether launches begin while those before still run: not until it has run on a GPU. A developer may set it."""
log = logging.getLogger("dtdfast")


def device_number(device: Any) -> int:
    """None, 1, "1", "cuda:1" or a torch.device as the number of a GPU."""
    if device is None:
        return 0
    found = re.fullmatch(r"(?:cuda:?)?(\d*)", str(device)) if not isinstance(device, bool) else None
    if found is None:
        raise BackendError(f'device is {device!r}, expected the number of a GPU or "cuda:0"')
    return int(found[1] or 0)


def open_device(device: Any) -> Device:
    """The GPU that `device=` names."""
    return Gpu(device_number(device))


class _Loaded:
    """Kernels in the primary context of one GPU: loaded once in a process."""

    def __init__(self) -> None:
        self.functions: dict[Kernel, Any] = {}
        self.shared: dict[Kernel, int] = {}  # bytes that blocks have leave for
        self.lock = threading.Lock()


_LOADED: defaultdict[int, _Loaded] = defaultdict(_Loaded)


class Gpu:
    """The `Device` of one GPU, in its primary context, which other libraries of the process share."""

    def __init__(self, number: int) -> None:
        self._driver = require("cuda.bindings.driver", "cuda")
        self.number = number
        self._call("cuInit", 0)
        count = self._call("cuDeviceGetCount")
        if not 0 <= number < count:
            raise BackendError(f"device={number}, but the NVIDIA driver sees {count} GPU(s), numbered from 0")
        self._device = self._call("cuDeviceGet", number)
        self.name = self._call("cuDeviceGetName", 128, self._device).split(b"\0")[0].decode()
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        self.capability = (self._attribute("COMPUTE_CAPABILITY_MAJOR"), self._attribute("COMPUTE_CAPABILITY_MINOR"))
        if self.capability < CAPABILITY:
            raise BackendError(
                f"device={number} is {self.name} of compute capability {dotted(self.capability)}; at least "
                f"{dotted(CAPABILITY)} is needed"
            )
        self.multiprocessors = self._attribute("MULTIPROCESSOR_COUNT")
        self.shared_bytes = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        self._loaded = _LOADED[number]
        with self._current():
            self.stream = int(self._call("cuStreamCreate", int(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))
        # the context stays: the kernels loaded into it serve the process
        weakref.finalize(self, _close, self._driver, self._context, self.stream).atexit = False

    def _call(self, name: str, *args: Any) -> Any:
        """A function of the driver; its results without the status, which must be success."""
        status, *results = getattr(self._driver, name)(*args)
        self._expect(name, status)
        return results[0] if len(results) == 1 else tuple(results)

    def _expect(self, name: str, status: Any) -> None:
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, text = self._driver.cuGetErrorString(status)
            advice = ""
            if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                advice = "; free memory there, or choose a smaller batch_size, another GPU by device=, or backend='cpu'"
            raise BackendError(f"the GPU's driver says to {name}: {text.decode() if text else status}{advice}")

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("cuDeviceGetAttribute", attribute, self._device))

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The context, for this thread."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    # --------------------------------------------------------------------------------------------------------- memory

    def memory(self) -> tuple[int, int]:
        with self._current():
            free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, nbytes: int) -> int:
        with self._current():
            address = self._allocated("cuMemAlloc", nbytes)
            if not address:
                raise OutOfMemory(nbytes, int(self._call("cuMemGetInfo")[0]))
        return address

    def _allocated(self, name: str, nbytes: int) -> int:
        """0 where there is not enough, which leaves the context as it was."""
        status, address = getattr(self._driver, name)(nbytes)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            return 0
        self._expect(name, status)
        return int(address)

    def release(self, address: int) -> None:
        with self._current():
            self._call("cuMemFree", address)

    def lock(self, nbytes: int) -> int:
        with self._current():
            return self._allocated("cuMemAllocHost", nbytes)

    def unlock(self, address: int) -> None:
        with self._current():
            self._call("cuMemFreeHost", address)

    # --------------------------------------------------------------------------------------------------------- copies

    def upload(self, address: int, array: Array, stream: int) -> None:
        with self._current():
            self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: Array, address: int, stream: int) -> None:
        with self._current():
            self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        with self._current():
            self._call("cuMemcpyDtoDAsync", to, source, nbytes, stream)

    def synchronize(self, stream: int) -> None:
        with self._current():
            self._call("cuStreamSynchronize", stream)

    # ------------------------------------------------------------------------------------------------------- launches

    def _kernel(self, launch: Launch) -> Kernel:
        """What is loaded for a launch."""
        return Dependent(**vars(launch.kernel)) if DEPENDENT and self.capability >= HOPPER else launch.kernel

    def prepare(self, launches: Sequence[Launch]) -> None:
        functions = self._loaded.functions
        with self._loaded.lock:
            wanted = dict.fromkeys(k for k in map(self._kernel, launches) if k not in functions)
            found = {kernel: cache.stored(kernel, self.capability) for kernel in wanted}
            missing = [kernel for kernel, binary in found.items() if binary is None]
            if missing:
                log.warning("compiling %d kernel(s) for %s; kept in %s", len(missing), self.name, cache.folder())
            made = parallel.compile_all(missing, self.capability) if missing else {}
            with self._current():
                for kernel, binary in found.items():
                    binary = binary or made[kernel]
                    module = self._call("cuModuleLoadData", binary.image)
                    try:
                        functions[kernel] = self._call("cuModuleGetFunction", module, binary.entry.encode())
                    except BackendError:
                        self._driver.cuModuleUnload(module)
                        raise
                self._allow_shared(launches)

    def _allow_shared(self, launches: Sequence[Launch]) -> None:
        """Leave for blocks with much shared memory."""
        for launch in launches:
            kernel, nbytes = self._kernel(launch), launch.shared_bytes
            if nbytes > max(PLAIN_SHARED_BYTES, self._loaded.shared.get(kernel, 0)):
                attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._call("cuFuncSetAttribute", self._loaded.functions[kernel], attribute, nbytes)
                self._loaded.shared[kernel] = nbytes

    def launch(self, launches: Sequence[Launch], stream: int) -> None:
        self.prepare(launches)
        with self._current():
            self._queue(launches, stream)

    def _queue(self, launches: Sequence[Launch], stream: int) -> None:
        for number, launch in enumerate(launches):
            values = (*launch.integers, *launch.floats)
            kinds = (ctypes.c_int64,) * len(launch.integers) + (ctypes.c_float,) * len(launch.floats)
            kernel, parameters = self._kernel(launch), (values, kinds)
            function = self._loaded.functions[kernel]
            if number and isinstance(kernel, Dependent):  # what comes before the first may be a copy
                self._call("cuLaunchKernelEx", self._overlapping(launch, stream), function, parameters, 0)
            else:
                sizes = *launch.grid, *launch.block, launch.shared_bytes
                self._call("cuLaunchKernel", function, *sizes, stream, parameters, 0)

    def _overlapping(self, launch: Launch, stream: int) -> Any:
        """How a launch is made that may begin before the one before is over."""
        attribute, config = self._driver.CUlaunchAttribute(), self._driver.CUlaunchConfig()
        attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
        config.sharedMemBytes, config.hStream = launch.shared_bytes, stream
        config.attrs, config.numAttrs = [attribute], 1
        return config

    def record(self, launches: Sequence[Launch]) -> Any:
        self.prepare(launches)  # nothing may be loaded while the stream is captured
        # the stricter modes would forbid this thread to free memory, which Python may do at any line for an Explainer
        # no longer used
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        with self._current():
            self._call("cuStreamBeginCapture", self.stream, mode)
            try:
                self._queue(launches, self.stream)
            except BaseException:  # which is the one to show: what ends the capture fails after it
                _, graph = self._driver.cuStreamEndCapture(self.stream)
                if graph is not None and int(graph):
                    self._driver.cuGraphDestroy(graph)
                raise
            graph = self._call("cuStreamEndCapture", self.stream)
            try:
                return self._call("cuGraphInstantiate", graph, 0)
            finally:
                self._driver.cuGraphDestroy(graph)

    def replay(self, graph: Any, stream: int) -> None:
        with self._current():
            self._call("cuGraphLaunch", graph, stream)

    def discard(self, graph: Any) -> None:
        with self._current():
            self._call("cuGraphExecDestroy", graph)

    def seconds(self, launches: Sequence[Launch], repeats: int) -> float:
        graph = self.record([*launches] * TIMED)  # the events themselves take microseconds
        with self._current(), ExitStack() as used:
            used.callback(self._driver.cuGraphExecDestroy, graph)
            before, after = (self._call("cuEventCreate", 0) for _ in range(2))
            for event in (before, after):
                used.callback(self._driver.cuEventDestroy, event)
            best = float("inf")
            for _ in range(repeats + 1):  # the first one warms up, and never is the least by luck alone
                self._call("cuEventRecord", before, self.stream)
                self._call("cuGraphLaunch", graph, self.stream)
                self._call("cuEventRecord", after, self.stream)
                self._call("cuEventSynchronize", after)
                best = min(best, 1e-3 * self._call("cuEventElapsedTime", before, after) / TIMED)
        return best


def _close(driver: Any, context: Any, stream: int) -> None:
    driver.cuCtxPushCurrent(context)
    driver.cuStreamDestroy(stream)
    driver.cuCtxPopCurrent()
