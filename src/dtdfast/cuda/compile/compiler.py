"""Kernels to machine code, with no GPU and no driver needed: numba makes PTX, nvJitLink assembles it."""

from __future__ import annotations

import re
from typing import Any

from ...errors import BackendError
from . import language
from .kernel import Binary, Kernel
from .specialise import specialised

HOPPER = (9, 0)
_IMPROVED = (
    (r"max\.f32 t, (\S+), 0f00000000; cvt\.rna\.tf32\.f32 (\S+), t;", r"cvt.rn.relu.tf32.f32 \2, \1;"),
    (r"cvt\.rna\.tf32", "cvt.rn.tf32"),
)


def improved(text: str) -> str:
    """PTX with what one instruction does from Hopper on: rounding to tf32, before it three, and of the positive
    part.
    """
    for old, new in _IMPROVED:
        text = re.sub(old, new, text)
    return text


def ptx_of(kernel: Kernel, cc: tuple[int, int]) -> str:
    """The kernel's PTX, its entry named `kernel.name`."""
    from . import ptx

    function = kernel.function(ptx)
    if not language.is_translated(function):
        function = specialised(function)
    text = ptx.text_of(function, kernel.n_integers, kernel.n_floats, cc, (kernel.threads, kernel.min_blocks))
    if "wgmma" in text and cc == HOPPER:
        # a call, as which a division comes, makes the linker wait after each wgmma; "full" errs by 2 units at most
        text = text.replace(".target sm_90", ".target sm_90a").replace("div.rn.f32", "div.full.f32")
    if cc >= HOPPER:
        text = improved(text)
    found = re.search(r"\.entry\s+([\w$]+)", text)
    assert found is not None
    return text.replace(found[1], kernel.name)


def compile_kernel(kernel: Kernel, cc: tuple[int, int]) -> Binary:
    """The kernel's machine code for one compute capability; raises as `linked`."""
    return linked(ptx_of(kernel, cc), kernel, cc)


def linked(ptx: str, kernel: Kernel, cc: tuple[int, int]) -> Binary:
    """Machine code of a kernel's PTX.

    Raises
    ------
    BackendError
        nvJitLink refused what numba made.
    """
    from cuda.bindings import nvjitlink

    text = ptx.encode()
    alone = "a" if ".target sm_90a" in ptx else ""  # instructions that no later GPU has
    options = [f"-arch=sm_{cc[0]}{cc[1]}{alone}", "-O3"]
    handle = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), kernel.name)
        nvjitlink.complete(handle)
        image = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, image)
    except nvjitlink.nvJitLinkError as error:
        raise BackendError(
            f"kernel {kernel.name} {kernel.constants} cannot be assembled for sm_{cc[0]}{cc[1]}: {_log(handle)}"
        ) from error
    finally:
        nvjitlink.destroy(handle)
    return Binary(bytes(image), kernel.name)


def _log(handle: Any) -> str:
    from cuda.bindings import nvjitlink

    log = bytearray(nvjitlink.get_error_log_size(handle))
    nvjitlink.get_error_log(handle, log)
    return log.decode(errors="replace").strip("\0\n ")
