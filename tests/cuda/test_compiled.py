"""The contraction kernel as machine code for sm_80 and sm_90: registers within what its blocks may use, nothing
spilled but contraction_kernels.SPILLED, and the instructions that it is written for.

The cost of a kernel in registers decides which units a row of `tiles.TILES` is for, so this is a table: one row per
unit, tile and direction with DTDFAST_LONG=1 (83 kernels, three seconds each), else one for every unit as it is fed
and as it is used, and one for every tile.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from numba.cuda import types
from numba.cuda.core import analysis

import dtdfast
from assembler import SHARED, between, count, early, resources, used_in_flight, workers
from contraction_kernels import (
    REGISTERS,
    Case,
    kernel_of,
    local_bytes,
    selected,
    specialisations,
    spilled,
    tiles_for,
)
from dtdfast.cuda.compile.compiler import ptx_of
from dtdfast.cuda.compile.dependent import waiting
from dtdfast.cuda.kernels.warp_product import WGMMA, bytes_of
from dtdfast.cuda.run.tiles import EVEN, EVEN_UNITS, NAMED, SHALLOW, UNEVEN
from dtdfast.cuda.run.tiles import THIN as THIN_FORM
from quicker import quicker

SMALL, THIN = NAMED["small"].tile, NAMED["thin"].tile
LONG = bool(os.environ.get("DTDFAST_LONG"))
TENSOR = {  # of a unit: the instruction that multiplies
    "fma": ("FFMA",), "tf32x3": ("HMMA", "1688", "F32", "TF32"), "tf32": ("HMMA", "1688", "F32", "TF32"),
    "bf16_rounded": ("HMMA", "16816", "F32", "BF16"), "bf16": ("HMMA", "16816", "F32", "BF16"),
    "bf16_wgmma": ("HGMMA", "F32", "BF16"), "tf32_wgmma": ("HGMMA", "F32", "TF32"),
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> dict[Case, dict[str, Any]]:
    """Whether a kernel first waits: in the short form of one for every unit as it is used."""
    cases = list(specialisations()) if LONG else selected()
    some = {(case[0], *case[2:4]): case for case in reversed(cases)}.values()
    waits = [LONG or case in some for case in cases]
    kernels = [kernel_of(*case) for case in cases]
    return dict(zip(cases, workers().map(resources, kernels, repeat(True), waits), strict=True))


def test_registers(table: Any) -> None:
    """As many blocks fit on a multiprocessor as launch bounds promise, and nothing spills but what may."""
    bad = []
    print(f"\n{'unit':13}{'fed':7}{'products':9}{'':12}{'tile':30}registers, sm_80 only in the long form")
    for case, row in table.items():
        unit, even, n_products, transposed, tile = case
        used = [found["registers"] for found in row["targets"].values()]
        fed, way = "even" if even else "uneven", "transposed" if transposed else "plain"
        print(f"{unit:13}{fed:7}{n_products:<9}{way:12}{tile.constants!s:30}{used}")
        for target, found in row["targets"].items():
            fits = found["registers"] * tile.threads * tile.min_blocks <= REGISTERS
            most = local_bytes(spilled(kernel_of(*case), target))
            if not fits or found["local"] > most or row["float64"]:
                bad.append((*case, target, found))
    assert not bad


def test_shared_memory() -> None:
    for _, _, n_products, _, tile in specialisations():
        assert tile.shared_bytes(n_products, 6) <= min(SHARED.values())
    for unit in TENSOR:  # a tile of every form on every GPU of compute capability 8
        forms = (EVEN,) * (unit in EVEN_UNITS) + (UNEVEN, SHALLOW, THIN_FORM) * (unit not in WGMMA)
        for form in forms:
            assert any(tile.shared_bytes(2, 6) <= 99 * 1024 for tile in tiles_for(unit, 2, form)), (unit, form)


def test_instructions(table: Any) -> None:
    """Every product in the instruction meant for it, copies and results 16 bytes at a time, fragments by ldmatrix; no
    other arithmetic.

    A tile, or two together, are 128 bytes deep each: a few steps of k, written out or in a loop, of 16 × 8 blocks,
    three instructions each in tf32x3.
    """
    for case, row in table.items():
        unit, _, n_products, transposed, tile = case
        code, blocks = row["code"], 1 if unit in WGMMA else tile.warp_pixels // 16 * (tile.warp_channels // 8)
        where = (*case, dict(code))
        assert not any(name.startswith(("DADD", "DMUL", "DFMA", "DSETP")) for name in code), where
        assert max(count(code, "LDL"), count(code, "STL")) <= spilled(kernel_of(*case), "sm_90"), where
        tensor = count(code, *TENSOR[unit])
        if unit == "fma":
            assert count(code, "HMMA") == 0, where
            assert tensor >= n_products * blocks * 4, where
            assert count(code, "LDGSTS") > 0 == count(code, "LDGSTS", "128"), where
            continue
        assert tensor == count(code, "HMMA") + count(code, "HGMMA"), where
        steps = tensor / (n_products * blocks * (3 if unit == "tf32x3" else 1))
        assert steps / tile.together in ((4,) if unit in WGMMA else (1, 2) if unit == "bf16_rounded" else (1, 2, 4)), (
            where
        )
        assert count(code, "LDGSTS") == count(code, "LDGSTS", "128") > 0, where
        assert count(code, "LDSM") == count(code, "LDSM", "4"), where
        assert bool(count(code, "LDSM")) != (unit == "tf32_wgmma" and transposed), where  # which loads weights alone
        assert bool(count(code, "LDSM", "MT88")) == (bytes_of(unit) == 2 and transposed), where
        of_views = count(code, "LDG", "128") - count(code, "LDG", "128", "CONSTANT")  # a bias is constant
        assert bool(of_views) == (n_products == 1), where  # the gate's dual product reads no view
        assert count(code, "STG") == count(code, "STG", "128") > 0, where
        if unit.startswith(
            "tf32"
        ):  # an instruction for each number that is rounded: x once, w for each product, in halves of both
            of_x = 8 * tile.pixels // tile.threads if unit in WGMMA else tile.warp_pixels // 16 * 4
            numbers = of_x + n_products * (tile.warp_channels // 8) * 2
            assert count(code, "F2FP", "TF32") == steps * numbers * (2 if unit == "tf32x3" else 1), where
        if (
            bytes_of(unit) == 2
        ):  # nothing is converted between copies and products: four conversions to each store of eight results
            assert count(code, "F2FP") == 4 * count(code, "STG"), where


def test_sums_are_added_as_written(table: Any) -> None:
    """Tensor cores multiply, and nothing else multiplies and adds at once: what a sum is rounded to does not depend on
    the tile. In tf32x3 three products of eight terms start from zero, and are added to the sum outside.
    """
    for case, row in table.items():
        code, tensor = row["code"], count(row["code"], "HMMA")
        if case[0] == "fma":
            continue
        assert count(code, "FFMA") == 0, case
        from_zero = sum(name.startswith("HMMA") and operands.endswith("RZ") for name, operands in row["listing"])
        if case[0] == "tf32x3":
            assert 3 * from_zero == tensor, case
            assert count(code, "FADD") >= 4 * from_zero, case


def test_tensor_cores_need_not_wait(table: Any) -> None:
    """In large tiles, four instructions or more stand between one and that which adds to its sums. But the three
    products of tf32x3 follow each other as closely as registers ask: four between half of them; or as they come, where
    three blocks share a multiprocessor, and the others' instructions stand between.
    """
    for case, row in table.items():
        unit, _, _, _, tile = case
        if unit in ("fma", *WGMMA) or tile.warp_pixels * tile.warp_channels < 32 * (32 if unit == "tf32x3" else 64):
            continue
        found = between(row["listing"])
        print(*case[:4], tile.constants, sorted(found.items()))
        close, most = sum(n for distance, n in found.items() if distance < 4), sum(found.values()) // 2
        assert found, case
        allowed = 0 if unit != "tf32x3" else most if tile.min_blocks < 3 else sum(found.values())
        assert close <= allowed, (case, found)


def test_wgmma_is_left_alone(table: Any) -> None:
    """Nothing writes its registers while it is in flight, and the compiler adds no waits to the one of the loop, before
    which copies stand. Its memory is aligned as the swizzle asks, and the code is for sm_90a.
    """
    for case, row in table.items():
        names = [name for name, _ in row["listing"]]
        if case[0] not in WGMMA:
            assert "HGMMA" not in {name.split(".")[0] for name in names}, case
            continue
        assert row["heads"] == [".target sm_90a", ".extern .shared .align 1024"], case
        assert used_in_flight(row["listing"]) == [], case
        assert count(row["code"], "WARPGROUP", "ARRIVE") == case[4].together, case
        assert count(row["code"], "WARPGROUP", "DEPBAR") == count(row["code"], "FENCE", "VIEW", "ASYNC") == 1, case
        last = max(place for place, name in enumerate(names) if name.startswith("HGMMA"))
        added = row["listing"][last][1].split(",")[0]
        assert used_in_flight([*row["listing"][: last + 1], ("MOV", f"{added}, RZ")]), case  # what would be found
        wait = next(place for place, name in enumerate(names) if name.startswith("WARPGROUP.DEPBAR"))
        assert any(name.startswith("LDGSTS") for name in names[last:wait]), case


def test_all_wait_for_the_launch_before(table: Any) -> None:
    """In programmatic dependent launch, first of all. Kernels of other factories: where they are assembled."""
    found = {case: row["early"] for case, row in table.items() if "early" in row}
    assert {case[0] for case in found} == set(TENSOR)
    assert not any(found.values()), found


FMA = kernel_of("fma", False, 1, False, THIN)


@cache
def text_of_fma() -> str:
    return ptx_of(FMA, (9, 0))


def test_numba_makes_the_same_when_it_is_quicker() -> None:
    """But for a number in the name of something that no kernel uses."""
    slow = text_of_fma()
    with quicker(types.Function, analysis):
        quick = ptx_of(FMA, (9, 0))
    assert len({re.sub(r"NumbaEnv\w+", "", text) for text in (slow, quick)}) == 1


WAIT = "\tgriddepcontrol.wait;\n"
SOME = "{.reg .pred q; .reg .u32 t; mov.u32 t, %tid.x; setp.eq.u32 q, t, 0; @q griddepcontrol.wait;}"


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (lambda text: text.replace(WAIT, ""), "no wait"),
        (
            lambda text: re.sub(r"([^\n]*cp\.async\.ca[^\n]*\n)", rf"\1{WAIT}", text.replace(WAIT, ""), count=1),
            "LDGSTS",
        ),
        (lambda text: text.replace(WAIT, SOME), "BRA"),
        (lambda text: text.replace("ld.global.s32", "ld.global.nc.s32"), "LDG.E.CONSTANT"),
    ],
)
def test_a_wait_that_is_wrong(fault: Callable[[str], str], found: str) -> None:
    """None, one behind a copy, one that only some threads execute, and loads that may be of another time."""
    kernel, text = FMA, waiting(text_of_fma())
    assert not early(kernel, text)
    assert any(found in step for step in early(kernel, fault(text)))


def test_what_hopper_does_in_one_instruction() -> None:
    kernel = kernel_of("tf32", True, 2, False, SMALL)
    before, since = ptx_of(kernel, (8, 0)), ptx_of(kernel, (9, 0))
    rounded, clamped = since.count("cvt.rn.tf32.f32"), since.count("cvt.rn.relu.tf32.f32")
    assert before.count("cvt.rna.tf32.f32") == rounded + clamped
    assert before.count("max.f32") - since.count("max.f32") == clamped > 0
    assert "cvt.rna" not in since


def test_parameters() -> None:
    """What the driver is handed: every number a parameter of its own, eight and four bytes; the block's size as
    promised.
    """
    kernel = kernel_of("bf16", False, 1, True, THIN)
    text = ptx_of(kernel, (9, 0))
    assert (
        re.findall(r"\.param \.(\w+) dtd_dense_param_\d+[,\n]", text)
        == ["u64"] * kernel.n_integers + ["f32"] * kernel.n_floats
    )
    assert f".maxntid {kernel.threads}, 1, 1" in text
    assert re.search(r"\.extern \.shared \.align 16 \.b8 \w+\[\];", text)  # all of it dynamic
    assert text.count(".shared .align") == 1


def test_one_module_imports_numba() -> None:
    """And nothing of CUDA's Python packages is imported anywhere but where a kernel is linked (the driver is asked for
    by name).
    """
    package = Path(dtdfast.__file__).parent
    found = {
        (path.relative_to(package).as_posix(), name.partition(".")[0])
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if _absolute(node)
            else []
        )
    }
    assert {(path, name) for path, name in found if name in ("numba", "llvmlite", "cuda")} == {
        ("cuda/compile/ptx.py", "numba"), ("cuda/compile/ptx.py", "llvmlite"), ("cuda/compile/compiler.py", "cuda"),
    }  # fmt: skip


def _absolute(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level == 0
