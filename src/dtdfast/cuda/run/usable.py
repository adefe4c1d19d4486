"""Whether CUDA can be used here, and if not, exactly why; nothing heavy is imported to find out."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from typing import Any

from ..compile import parallel

DRIVER = "libcuda.so.1"
CAPABILITY = (8, 0)  # bfloat16 and tf32 tensor cores, asynchronous copies
PACKAGES = ("numba", "numba_cuda", "cuda.bindings.driver", "cuda.bindings.nvjitlink")  # what the extras bring
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@cache
def survey() -> tuple[str | None, str]:
    """(what is in the way, or None; what there is), by the driver itself and without opening a device."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        return f"there is no NVIDIA driver here ({error})", ""
    status = driver.cuInit(0)
    if status:
        return f"the NVIDIA driver does not start ({_text(driver, status)})", ""
    count, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    driver.cuDriverGetVersion(ctypes.byref(version))
    if not count.value:
        return "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)", ""
    names = [_describe(driver, i) for i in range(count.value)]
    if all(capability < CAPABILITY for _, capability in names):
        return (
            f"{names[0][0]} has compute capability {dotted(names[0][1])}; at least {dotted(CAPABILITY)} is needed",
            "",
        )
    missing = [name for name in PACKAGES if not _found(name)]
    major = version.value // 1000
    if missing:
        package = (
            missing[0]
            .partition(".")[0]
            .replace("_", "-")
            .replace("cuda", "cuda-bindings", missing[0].startswith("cuda."))
        )
        return f"{package} is not installed: pip install 'dtdfast[{extra_for(major)}]'", ""
    devices = ", ".join(f"{name} (compute capability {dotted(capability)})" for name, capability in names)
    problem = parallel.obstacle()
    kept = f"; {problem}; until then only kernels that are kept on disk run" if problem else ""
    return None, f"{devices}; driver for CUDA {major}.{version.value % 1000 // 10}{kept}"


def extra_for(driver_major: int) -> str:
    """The extra whose CUDA libraries a driver can run."""
    return "cuda12" if driver_major <= 12 else "cuda13"


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _describe(driver: Any, number: int) -> tuple[str, tuple[int, int]]:
    device, text = ctypes.c_int(), ctypes.create_string_buffer(128)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(text, len(text), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return text.value.decode(), (capability[0], capability[1])


def _text(driver: Any, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    return text.value.decode() if text.value else f"error {status}"


def dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
