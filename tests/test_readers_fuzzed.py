"""Every reader of files, fed with mutations of valid ones: it ends in a right answer or in a DtdError, whatever the
bytes.

Right is what a second reader finds in the same bytes: of safetensors and .npy the arrays, of pictures what Pillow alone
makes of them, of a run that is continued the rows that it had. DTDFAST_LONG=1 makes 10,000 mutations of each kind of
file.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import dtdfast as dtd
from dtdfast.data import digits
from dtdfast.images import Preparation
from dtdfast.runs.sources import open_source

RNG = np.random.default_rng(0)
LONG = bool(os.environ.get("DTDFAST_LONG"))
COUNT = 10_000 if LONG else 100
EDGES = (0, 1, 0x7F, 0x80, 0xFF)
DIGITS = b'0123456789-.eE[]{}",:'
TYPES = {"F32": "<f4", "F64": "<f8"}
FED = Preparation(size=(8, 8))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, cut out, doubled or cut off; numbers and punctuation in texts; lengths in headers."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not found:
            break
        at = int(rng.integers(len(found)) if rng.random() < 0.4 else rng.integers(min(len(found), 256)))
        size = int(rng.integers(1, 9))
        match int(rng.integers(14)):
            case 0 | 7:
                found[at] = int(rng.integers(256))
            case 1 | 8:
                found[at] ^= 1 << int(rng.integers(8))
            case 2 | 9:
                found[at : at + size] = bytes([int(rng.choice(EDGES))] * size)
            case 3 | 10:
                del found[at : at + size * int(rng.choice([1, 1, 64]))]
            case 4 | 11:
                found[at:at] = found[at : at + size]
            case 5 | 6 | 12:
                found[at] = int(rng.choice(list(DIGITS)))
            case _:
                del found[at:]
    return bytes(found)


# ------------------------------------------------------------------------------------------------------------ readers


def network(path: Path) -> None:
    """Every array of every record has the bytes that stand in the file."""
    layers = dtd.load(path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:start])
    found = {
        f"{position}.{field.name}": value
        for position, record in enumerate(layers)
        for field in dataclasses.fields(record)
        if isinstance(value := getattr(record, field.name), np.ndarray)
    }
    assert found.keys() == header.keys() - {"__metadata__"}
    for name, value in found.items():
        first, last = header[name]["data_offsets"]
        np.testing.assert_array_equal(
            value.ravel(), np.frombuffer(whole[start + first : start + last], TYPES[header[name]["dtype"]])
        )


def picture(path: Path) -> None:
    """The same pixels as from Pillow alone, of pictures that it reads as bytes."""
    found = FED.picture(path)
    assert (found.shape, found.dtype) == ((8, 8, 3), np.uint8)
    with Image.open(path) as file:
        upright = ImageOps.exif_transpose(file)
        if upright.mode[0] not in "IF":
            np.testing.assert_array_equal(found, FED.resized(upright.convert("RGB")))


def array(path: Path) -> None:
    """The samples that NumPy reads."""
    source = open_source(str(path))
    shape, dtype = source.sample(FED if source.pictures else None)
    if source.pictures:
        return
    x = np.zeros((1, *shape), dtype)
    (error,) = source.piece(0, 1, None).read(x)
    if error:
        raise dtd.InputError(error)
    expected = np.load(path)[:1]
    np.testing.assert_array_equal(x.ravel(), expected.ravel())  # mapped, the type "1f4" adds an axis


# -------------------------------------------------------------------------------------------------------------- files


def saved() -> bytes:
    file = Path("seed.safetensors")
    dtd.save(
        [
            dtd.Conv(RNG.standard_normal((3, 2, 3, 3)), RNG.standard_normal(3)),
            dtd.ReLU(),
            dtd.MaxPool(2),
            dtd.Flatten(),
        ],
        file,
    )
    return file.read_bytes()


def stored() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, RNG.random((3, 2, 4, 4), np.float32))
    return buffer.getvalue()


def encoded(kind: str, pixels: Any = None) -> Callable[[], bytes]:
    def make() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (12, 10, 3), np.uint8) if pixels is None else pixels).save(buffer, kind)
        return buffer.getvalue()

    return make


DEEP = RNG.integers(0, 1 << 16, (12, 10), np.uint16)
READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], None]]] = {
    "safetensors": ("net.safetensors", saved, network),
    "npy": ("x.npy", stored, array),
    **{
        kind: (f"x.{kind.lower()}", encoded(kind), picture)
        for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "PPM", "WEBP", "JPEG2000")
    },
    "deep PNG": ("x.png", encoded("PNG", DEEP), picture),
    "deep TIFF": ("x.tif", encoded("TIFF", DEEP), picture),
    "float TIFF": ("x.tif", encoded("TIFF", (DEEP / 65535).astype(np.float32)), picture),
}


@pytest.mark.parametrize("kind", READERS)
def test_mutations_of_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DTDFAST_MEMORY", "256M")
    name, make, read = READERS[kind]
    seed, path, ends = make(), Path(name), {"right": 0, "refused": 0}
    path.write_bytes(seed)
    read(path)
    for _ in range(COUNT):
        path.write_bytes(mutated(seed, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decoders
            try:
                read(path)
                ends["right"] += 1
            except dtd.DtdError:
                ends["refused"] += 1
    print(kind, ends)
    assert ends["refused"] > COUNT // 20  # the mutations do something


def test_mutations_of_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """A run of which one chunk is missing, and whose metadata were changed: continued, it ends in the rows that it had,
    or is refused.
    """
    monkeypatch.chdir(tmp_path)
    layers, images, _ = digits()
    options = dict(domain=(0.0, 1.0), chunk=2, n_threads=1)
    dtd.run(layers, images[:4], "whole.zarr", **options)
    texts = [path.relative_to("whole.zarr") for path in Path("whole.zarr").rglob("zarr.json")]
    rows = [path.relative_to("whole.zarr") for path in Path("whole.zarr").rglob("c.*") if path.is_file()]
    assert len(texts) == 7
    assert len(rows) == 10
    ends = {"right": 0, "refused": 0}
    shutil.copytree("whole.zarr", "maps.zarr")
    for number in range(COUNT if LONG else 40):
        changed = texts[int(rng.integers(len(texts)))] if number % 2 else Path("zarr.json")
        Path("maps.zarr", changed).write_bytes(mutated(Path("whole.zarr", changed).read_bytes(), rng))
        for missing in ("relevance/c.1.0.0.0", "finished/c.1"):
            Path("maps.zarr", missing).unlink(missing_ok=True)
        try:
            dtd.run(layers, images[:4], "maps.zarr", resume=True, **options)
            assert all(Path("maps.zarr", row).read_bytes() == Path("whole.zarr", row).read_bytes() for row in rows)
            ends["right"] += 1
        except dtd.DtdError:
            ends["refused"] += 1
        shutil.copyfile(Path("whole.zarr", changed), Path("maps.zarr", changed))
    print("manifest", ends)
    assert ends["refused"] > 20
    dtd.run(layers, images[:4], "maps.zarr", resume=True, **options)
    assert all(Path("maps.zarr", row).read_bytes() == Path("whole.zarr", row).read_bytes() for row in rows)
