"""Every reader of files, fed with mutations of valid ones: it answers, or raises a DtdError; nothing else, whatever the bytes.

DTDFAST_LONG=1 makes 10,000 mutations of each kind of file.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dtdfast as dtd
from dtdfast import budget, cli
from dtdfast.images import Preparation
from dtdfast.runs.sources import open_source

RNG = np.random.default_rng(0)
COUNT = 10_000 if os.environ.get("DTDFAST_LONG") else 150
EDGES = (0, 1, 0x7F, 0x80, 0xFF)
DIGITS = b'0123456789-.eE[]{}",:'


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, cut out, doubled or moved; numbers and punctuation in texts; lengths in headers."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not found:
            break
        at = int(rng.integers(len(found)) if rng.random() < 0.4 else rng.integers(min(len(found), 256)))
        size = int(rng.integers(1, 9))
        match int(rng.integers(7)):
            case 0:
                found[at] = int(rng.integers(256))
            case 1:
                found[at] ^= 1 << int(rng.integers(8))
            case 2:
                found[at : at + size] = bytes([int(rng.choice(EDGES))] * size)
            case 3:
                del found[at : at + size * int(rng.choice([1, 1, 64]))]
            case 4:
                found[at:at] = found[at : at + size]
            case 5:
                found[at] = int(rng.choice(list(DIGITS)))
            case _:
                del found[at:]
    return bytes(found)


def network(path: Path) -> None:
    dtd.load(path)


def picture(path: Path) -> None:
    Preparation(size=(8, 8)).picture(path)


def array(path: Path) -> None:
    source = open_source(str(path))
    shape, dtype = source.sample(None)
    budget.require(int(np.prod(shape)) * dtype.itemsize, "one sample")
    source.piece(0, 1, None).read(np.zeros((1, *shape), np.float32))


def saved() -> bytes:
    file = Path("seed.safetensors")
    dtd.save([dtd.Conv(RNG.standard_normal((3, 2, 3, 3)), RNG.standard_normal(3)), dtd.ReLU(), dtd.MaxPool(2), dtd.Flatten()], file)
    return file.read_bytes()


def encoded(kind: str, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (12, 10, 3), np.uint8)).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


def stored() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, RNG.random((3, 2, 4, 4), np.float32))
    return buffer.getvalue()


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], None]]] = {
    "safetensors": ("net.safetensors", saved, network),
    "npy": ("x.npy", stored, array),
    "PNG": ("x.png", encoded("PNG"), picture),
    "JPEG": ("x.jpg", encoded("JPEG"), picture),
    "TIFF": ("x.tif", encoded("TIFF"), picture),
    "GIF": ("x.gif", encoded("GIF"), picture),
}


@pytest.mark.parametrize("kind", READERS)
def test_mutations_of_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DTDFAST_MEMORY", "256M")
    name, make, read = READERS[kind]
    seed, path, ends = make(), Path(name), {"read": 0, "refused": 0}
    path.write_bytes(seed)
    read(path)
    for _ in range(COUNT):
        path.write_bytes(mutated(seed, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decoders
            try:
                read(path)
                ends["read"] += 1
            except dtd.DtdError:
                ends["refused"] += 1
    print(kind, ends)
    assert ends["refused"] > COUNT // 20  # the mutations do something


def test_mutations_of_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """A run whose manifest was changed ends in the same rows, or is refused in a line."""
    monkeypatch.chdir(tmp_path)
    dtd.save([dtd.Flatten(), dtd.Linear(RNG.standard_normal((3, 8)))], "net.safetensors")
    np.save("x.npy", RNG.random((4, 2, 2, 2), np.float32))
    command = ["explain", "net.safetensors", "x.npy", "-o", "maps.zarr", "--chunk", "2", "--resume"]
    assert cli.main(command) == 0
    manifest = Path("maps.zarr/zarr.json")
    seed = manifest.read_bytes()
    rows = {p: p.read_bytes() for p in Path("maps.zarr").rglob("c/*") if p.is_file()}
    for _ in range(COUNT if COUNT > 1000 else 25):
        manifest.write_bytes(mutated(seed, rng))
        code = cli.main(command)
        assert code in (0, 2), json.dumps(manifest.read_text(errors="replace"))
        if code == 0:
            assert {p: p.read_bytes() for p in rows} == rows
    manifest.write_bytes(seed)
    assert cli.main(command) == 0
