"""Kernels that are no contractions: assembled for sm_80 and sm_90, and run by Python itself."""

from __future__ import annotations

import ast
import inspect
from itertools import product, repeat
from pathlib import Path

import numpy as np
import pytest

import dtdfast as dtd
import host
from assembler import resources, workers
from dtdfast import threads
from dtdfast.cuda.compile import cache, parallel, sources
from dtdfast.cuda.compile.dependent import Dependent
from dtdfast.cuda.compile.kernel import Binary, Kernel
from dtdfast.cuda.kernels import (
    checks,
    depthwise,
    elementwise,
    embedding,
    normalise,
    pool,
    start,
    strided,
    sums,
    weight_gradient,
)
from dtdfast.cuda.kernels.formulas import ACTIVATIONS, FACTORS, INPUT_MAPS, MULTIPLIERS, WEIGHT_MAPS
from dtdfast.cuda.kernels.matmul import N_INTEGERS, THREADS, matmul
from dtdfast.cuda.kernels.strided import ABSENT, ALONG, STILL
from dtdfast.cuda.run.matmul import MIN_BLOCKS, NAME
from dtdfast.explainer import Explainer
from host import HostDevice
from nets import SMALL
from nets.transformers import TRANSFORMERS
from paper import on_paper
from support import LONG, classifier, normal

REGISTERS = 80  # of a thread: three blocks of 256 on a multiprocessor

# (body, constants, views or their types, longs, floats)
BODIES = [
    (elementwise.fill_long, (), 1, 1, 0),
    *((depthwise.neuron_channel, ("clip", mode, True), 10, 4, 4) for mode in ("none", "gate", "denominator",
    "derivative", "signed")),
    (depthwise.neuron_channel, ("gelu_tanh", "gate", False), 10, 4, 4),
    *((depthwise.taps_channel, (weight_map, "times"), 5, 4, 1) for weight_map in list(WEIGHT_MAPS)[::2]),
    *((pool.max_pool, (9, lanes), (real, winner, real, *["f4"] * 3), 7, 0)
      for real, winner, lanes in (("f4", "u1", 4), ("f4", "u2", 1), ("bf16", "u1", 4))),
    *((pool.max_unpool, (scaled, 4, lanes), ("f4", "f4", "f4", winner, *["f4"] * 3), 11, 0)
      for winner, scaled, lanes in (("u1", False, 1), ("u1", True, 4), ("u2", True, 1), ("u1", False, 4))),
    (pool.max_unpool, (True, 1, 4), ("bf16", "bf16", "bf16", "u1", *["f4"] * 3), 11, 0),
    (depthwise.neuron_channel, ("relu", "gate", True),
     ("bf16", "bf16", "bf16", "bf16", "f4", "bf16", "bf16", "f4", "f4", "f4"), 4, 4),
    (normalise.lrn, (), 3, 3, 3),
    (normalise.length, (), ("f4", "bf16", "f4"), 3, 0),
    (embedding.embed, (), 3, 2, 0),
    (embedding.embed_sum, (), 3, 4, 0),
    (checks.check, (), 3, 2, 1),
    (checks.check_row, (), 2, 1, 1),
    (start.largest, (), 5, 2, 0),
    (start.start, (), 4, 2, 0),
    (weight_gradient.weight_gradient, (), ("f8", "f4", "f4", "i8"), 12, 0),
    (weight_gradient.weight_gradient, (), ("f8", "bf16", "bf16", "i8"), 12, 0),
]  # fmt: skip

LINES = [  # a warp each, with sums in float64
    (elementwise.clear_border, (), 2, 1, 0),
    (normalise.softmax, (), 3, 4, 1),
    (normalise.log_softmax, (), ("bf16", "f4"), 3, 0),
    (normalise.softmax_back, (), 3, 5, 1),
    (normalise.norm, (True,), ("bf16", "f4", "bf16", "f4", "f4"), 5, 1),
    (normalise.norm, (False,), 5, 5, 1),
    (normalise.norm_products, ("w+", "none", True, False), 5, 6, 1),
    (normalise.norm_products, ("w+g.w-", "times positive", True, True), 5, 6, 1),
    (normalise.norm_products, ("w", "times", False, True), ("bf16", "bf16", "f4", "f4", "bf16"), 6, 1),
    (normalise.norm_derivative, (True,), 4, 6, 1),
]

# (function, constants, how many views or their types, longs, floats, operands that are not there along)
ELEMENTS = [
    (elementwise.move, (), 2, 0, 0, {}),
    (elementwise.move, (), ("bf16", "f4"), 0, 0, {}),
    *((elementwise.map_input, (mode,), 3, 0, 0, {}) for mode in list(INPUT_MAPS)[::2]),
    (elementwise.map_input, ("1",), 3, 0, 0, {1: ABSENT, 2: ABSENT}),
    *((elementwise.map_weight, (mode,), 2, 0, 1, {}) for mode in ("1", "w+g.w-")),
    *((elementwise.multiply, (mode,), 3, 0, 1, {}) for mode in list(MULTIPLIERS)[1::2]),
    (elementwise.multiply, ("times",), ("f4", "bf16", "bf16"), 0, 1, {2: STILL}),
    *((elementwise.divide, (mode,), 3, 0, 0, {}) for mode in ("none", "positive", "negative")),
    *((elementwise.activate, (kind, bool(k % 2), kind == "leaky_relu"), 3, 0, 2,
       {} if kind == "leaky_relu" else {2: ABSENT}) for k, kind in enumerate(ACTIVATIONS)),
    (elementwise.affine, (), 4, 0, 0, {2: STILL}),
    *((elementwise.factor, (mode,), ("f4", "bf16", *("f4",) * 6), 1, 2, {6: STILL}) for mode in (*FACTORS, "signed")),
    (elementwise.factor, ("paired",), 8, 1, 2, {3: ABSENT, 7: ABSENT}),
]  # fmt: skip


SUMS = [  # a warp for each block of a sample
    (sums.sums, ("times",), ("f4", "f4"), 0, 0),
    (sums.sums, ("positive",), ("bf16", "f4"), 0, 0),
    (sums.account, ("none",), ("f4",) * 9, 1, 3),
    (sums.account, ("gate",), ("bf16", "f4", "bf16", *("f4",) * 6), 1, 3),
    (sums.account, ("denominator",), ("f4",) * 9, 1, 3),
]


def of_neighbours(function, constants, views, longs, floats, others, n_axes):
    types = views if isinstance(views, tuple) else ("f4",) * views
    forms = tuple(others.get(k, ALONG) for k in range(1, len(types)))
    together = 8 if "bf16" in types else 4
    return strided.kernel_of_elements(function, types, constants, n_axes, longs, floats, forms, together)


def kernels():
    return [
        strided.kernel(
            body, views if isinstance(views, tuple) else ("f4",) * views, constants, 1 + number % 4, longs, floats,
            number >= len(BODIES),
        )
        for number, (body, constants, views, longs, floats) in enumerate([*BODIES, *LINES])
    ] + [
        of_neighbours(*row, 1 + number % 4) for number, row in enumerate(ELEMENTS)
    ] + [
        sums.kernel(body, types, constants, 1 + number % 4, longs, floats)
        for number, (body, constants, types, longs, floats) in enumerate(SUMS)
    ]  # fmt: skip


def products():
    """Of computed matrices: both ways through either operand, operands of two bytes, one of them of all targets."""
    cases = [
        (("f4",) * 4, "none", (False,) * 4, (True, True)),
        (("bf16",) * 4, "absolute", (False, True, False, True), (False, False)),
    ]
    return [Kernel(NAME, matmul, case, N_INTEGERS, 1, THREADS, MIN_BLOCKS) for case in cases]


@pytest.fixture(scope="module")
def assembled():
    """Whether a kernel first waits: without DTDFAST_LONG of one of every factory."""
    made = [*kernels(), *products()]
    some = {kernel.factory: kernel for kernel in made}.values()
    waits = [LONG or kernel in some for kernel in made]
    return dict(zip(made, workers().map(resources, made, repeat(False), waits), strict=True))


def test_assembled(assembled):
    """Nothing spilled, no local memory, float64 in sums along lines and over samples alone, few enough registers for
    memory to be kept busy; for products of matrices, as many as their blocks may use.
    """
    print()
    bad = []
    for kernel, row in assembled.items():
        print(
            f"{kernel.name:16}{cache._text(kernel.constants[2]):28}{[r['registers'] for r in row['targets'].values()]}"
        )
        most = {NAME: 65536 // (THREADS * MIN_BLOCKS), "account": 65536 // 512}.get(kernel.name, REGISTERS)
        sums_along = kernel.constants[-1] is True and kernel.name != "clear_border"
        wide = sums_along or kernel.name == weight_gradient.weight_gradient.__name__
        if row["float64"] != wide or any(r["registers"] > most or r["local"] for r in row["targets"].values()):
            bad.append((kernel.name, kernel.constants[1:3], row))
    assert not bad


def test_all_wait_for_the_launch_before(assembled):
    """In programmatic dependent launch, first of all."""
    found = {kernel: row["early"] for kernel, row in assembled.items() if "early" in row}
    assert {kernel.factory for kernel in found} == {kernel.factory for kernel in assembled}
    assert not any(found.values()), found


def test_what_must_cancel(assembled):
    """Products are rounded before the sums that may have to be exactly 0, as on the host: of a norm's matrix, of an
    account, of what is scaled (each tap's product may go unrounded, into y and terms alike), of weight · x + bias.

    A weight map of its own sum, w + γw⁻, is the same with and without the diagonal.
    """
    checked = {}
    for kernel, row in assembled.items():
        constants = kernel.constants[2]
        fused, may_be = row["fused"]["f64" if kernel.name in ("account", "norm_products") else "f32"]
        if kernel.name in ("affine", "multiply"):
            checked[kernel] = (fused, may_be) == (0, 0)
        if kernel.name == "norm_products":
            checked[kernel] = may_be == 0 and (fused == 0 or "w+g.w-" in constants)
        if kernel.name == "neuron_channel":
            checked[kernel] = may_be == 0 or constants[1] != "signed"
        if kernel.name == "account":
            checked[kernel] = fused == 0
    assert len(checked) == 1 + 5 + 3 + 7 + 3
    assert all(checked.values()), [kernel for kernel, right in checked.items() if not right]


def test_what_transformers_ask_for():
    """Every body stands in the tables above, those of lines with a warp each."""
    with on_paper() as device:
        for name, rules in product(TRANSFORMERS, ("dtd", "attnlrp")):
            net = SMALL[name]()
            made = Explainer(net.layers, backend="cuda", rules=rules)
            made.explain(net.sample(2), [[0, 1], [1, 0]])
            Explainer(net.layers, backend="cuda", kind="gradient").explain(net.sample(2), 0)
    asked = {(k.constants[0], k.constants[-1]) for k in device.kernels if k.factory is strided.skeleton}
    assert asked <= {(row[0], rows is LINES) for rows in (BODIES, LINES) for row in rows}
    functions = {k.constants[0] for k in device.kernels if k.factory is strided.elements}
    assert elementwise.multiply in functions <= {row[0] for row in ELEMENTS}
    lines = {body for body, per_line in asked if per_line}
    assert lines == {row[0] for row in LINES} - {normalise.log_softmax}
    assert any(k.name == NAME for k in device.kernels)


def test_by_python_itself(explainer, rng, monkeypatch):
    """Without a compiler the kernels mean the same."""
    monkeypatch.setattr(host, "FEW", 0)
    layers, x = classifier(rng), normal(rng, 1, 3, 6, 6)
    compiled = explainer(layers, HostDevice(compiled=True)).explain(x)
    plain = explainer(layers, HostDevice(compiled=False)).explain(x)
    assert abs(plain - compiled).max() <= 1e-5 * abs(compiled).max()
    assert abs(plain - dtd.explain(layers, x, backend="oracle")).max() <= 1e-5 * abs(plain).max()


# ----------------------------------------------------------------------------------------------------- the disk cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DTDFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def some_kernel(mode="times", n_axes=2):
    return strided.kernel_of_elements(elementwise.multiply, ("f4",) * 3, (mode,), n_axes, 0, 1, (ALONG, ALONG), 1)


def test_cache(folder):
    kernel, calls = some_kernel(), []

    def compiler(kernel, cc):
        calls.append(cc)
        return Binary(b"machine code", kernel.name)

    assert cache.stored(kernel, (9, 0)) is None
    made = cache.compiled(kernel, (9, 0), compiler)
    assert cache.stored(kernel, (9, 0)) == made
    assert cache.stored(kernel, (8, 0)) is None
    assert cache.stored(some_kernel("none"), (9, 0)) is None
    assert cache.stored(Dependent(**vars(kernel)), (9, 0)) is None
    assert cache.stored(some_kernel(n_axes=3), (9, 0)) is None
    assert calls == [(9, 0)]
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"X")  # damaged
    assert cache.stored(kernel, (9, 0)) is None
    other = some_kernel("none")
    cache.path_of(other, (9, 0)).write_bytes(content)  # another's
    assert cache.stored(other, (9, 0)) is None


def test_the_key_follows_from_the_code_alone(tmp_path):
    """Comments, docstrings and empty lines keep a kernel; a number does not."""
    source = tmp_path / "kernel.py"
    code = "def f(x):\n    return x + 1\n"
    texts = [
        code,
        '"""Of the module,\ntwo lines."""\n\n' + code,
        'def f(x):  # a # comment\n    """Of f."""\n\n    # alone\n    return x + 1\n',
        code.replace("1", "2"),
        code.replace("1", '"# no comment"'),
    ]
    found = []
    for text in texts:
        source.write_text(text)
        sources.code_of.cache_clear()
        found.append(sources.code_of(source))
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 3
    assert b"# no comment" in found[-1]


def test_kept_kernels_are_those_of_these_sources():
    """The key of a kept kernel holds every module that its machine code follows from, and no other kernel's."""
    for kernel in [*kernels(), *products()]:
        parts = {kernel.factory, *(part for part in kernel.constants if inspect.isfunction(part))}
        files = sources.needed({part.__module__ for part in parts})
        names = {file.stem for file in files}
        assert {inspect.getmodule(part).__name__.rpartition(".")[2] for part in parts} <= names
        assert {"ptx", "language", "specialise", "compiler"} <= names
        assert ("dense" in names) == (kernel.name == "dtd_dense")
        for file in files:
            reached = {node.module for node in ast.walk(ast.parse(file.read_text())) if is_sibling(node)}
            assert reached <= names, file


def is_sibling(node):
    return isinstance(node, ast.ImportFrom) and node.level == 1 and node.module and node.module != "sources"


def test_a_comment_in_a_file_keeps_its_kernels(monkeypatch):
    """As an edit of the real file would: pool.py is read with one more comment, then with one more line of code."""
    kernel = strided.kernel(pool.max_pool, ("f4",) * 3, (9, 1), 1, 7, 0)
    found = []
    read = Path.read_text
    for more in ("", "\n# more\n", "\nMORE = 1\n"):
        monkeypatch.setattr(
            Path, "read_text", lambda path, more=more, **given: read(path, **given) + more * (path.stem == "pool")
        )
        sources.code_of.cache_clear()
        cache._environment.cache_clear()
        found.append(cache.path_of(kernel, (9, 0)))
    monkeypatch.undo()
    sources.code_of.cache_clear()
    cache._environment.cache_clear()
    assert found[0] == found[1] != found[2]


def test_only_kernels_that_wait_follow_from_how(monkeypatch):
    """Programmatic dependent launch is not in use: what makes kernels for it leaves others as they are."""
    kernel, found = some_kernel(), []
    read = sources.code_of
    for more in (b"", b"MORE = 1"):
        monkeypatch.setattr(
            cache,
            "code_of",
            lambda path, more=more: read(path) + more * (path.stem == Dependent.__module__.rpartition(".")[2]),
        )
        found.append([cache.path_of(k, (9, 0)) for k in (kernel, Dependent(**vars(kernel)))])
    assert found[0][0] == found[1][0]
    assert len({found[0][0], found[0][1], found[1][1]}) == 3


def test_a_cache_that_cannot_be_written(folder):
    folder.parent.joinpath("cache").write_text("a file where the folder should be")
    assert cache.compiled(some_kernel(), (9, 0), lambda k, cc: Binary(b"code", k.name)).image == b"code"


def test_a_disk_that_is_full(folder, monkeypatch):
    """Nothing is left of the kernel that could not be kept."""

    def full(path, to):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cache.compiled(some_kernel(), (9, 0), lambda k, cc: Binary(b"code", k.name)).image == b"code"
    assert not list(folder.iterdir())


def test_where_the_cache_lies(monkeypatch):
    monkeypatch.delenv("DTDFAST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/dtdfast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache/dtdfast"


def test_what_the_executor_loads(folder):
    """A real cubin, from the cache the second time."""
    made = cache.compiled(some_kernel(), (9, 0))
    assert made.image.startswith(b"\x7fELF")
    assert made.entry.encode() in made.image
    assert np.frombuffer(made.image[18:20], np.uint16)[0] == 190  # EM_CUDA
    assert cache.stored(some_kernel(), (9, 0)) == made


# ------------------------------------------------------------------------------------------------------- the parallel


def kernels_for_two():
    return [some_kernel(mode, n_axes) for mode in ("times", "positive") for n_axes in (1, 2)]


def test_side_by_side(folder, monkeypatch):
    """Another process compiles its share, and both keep it on disk."""
    monkeypatch.setattr(threads, "GIVEN", "2")
    kernels, here = kernels_for_two(), []
    compiled = cache.compiled
    monkeypatch.setattr(cache, "compiled", lambda kernel, cc: (here.append(kernel), compiled(kernel, cc))[1])
    made = parallel.compile_all(kernels, (9, 0))
    assert here == kernels[::2]
    assert len(list(folder.iterdir())) == 4
    for kernel in kernels:
        assert made[kernel] == cache.stored(kernel, (9, 0))


@pytest.mark.parametrize("interpreter", ["", "/nowhere/python", "/bin/false"])
def test_where_no_other_process_helps(folder, monkeypatch, interpreter):
    """An embedded interpreter has no executable to start; a program of its own may be something else altogether."""
    monkeypatch.setattr(threads, "GIVEN", "2")
    monkeypatch.setattr(parallel.sys, "executable", interpreter)
    monkeypatch.setattr(cache, "compiled", lambda kernel, cc: Binary(b"code", kernel.name))
    kernels = kernels_for_two()
    assert parallel.compile_all(kernels, (9, 0)) == dict.fromkeys(kernels, Binary(b"code", "multiply"))
