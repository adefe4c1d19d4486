"""Files of every kind but ONNX: valid ones to begin with, and their reading.

Right is what a second reader finds in the same bytes: of safetensors and .npy the arrays, of pictures what Pillow alone
makes of them, of Zarr and HDF5 what their libraries read, of a run that is continued the rows that it had.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import zarr
from PIL import Image, ImageOps

import dtdfast as dtd
from dtdfast.colours import Style, palette
from dtdfast.concepts import Channels, stored_samples
from dtdfast.data import digits
from dtdfast.images import Preparation
from dtdfast.reports.sheet import gathered, sheet
from dtdfast.runs.overview import Overview
from dtdfast.runs.sources import open_source
from dtdfast.runs.store import DIGEST, KEY, _digest

from . import mutations
from .mutations import bundled, unbundled
from .target import Target, held

TYPES = {"F32": "<f4", "F64": "<f8", "BOOL": "?"}
FED = Preparation(size=(8, 8))
OUTSIDE = 1 / 3 + 1e-4  # of an array in a file outside, which no reading may show


def random() -> np.random.Generator:
    return np.random.default_rng(0)


# ---------------------------------------------------------------------------------------------------------- safetensors


def saved() -> list[bytes]:
    rng, file = random(), Path("seed.safetensors")
    normal = rng.standard_normal
    networks = [
        [dtd.Conv(normal((3, 2, 3, 3)), normal(3)), dtd.ReLU(), dtd.MaxPool(2), dtd.Flatten()],
        [
            dtd.Embedding(normal((5, 4))),
            dtd.LayerNorm(weight=normal(4), bias=normal(4)),
            dtd.Softmax(log=True),
            dtd.Linear(normal((3, 4)), axis=-1),
        ],
        [
            dtd.Pad(((1, 1), (0, 2))),
            dtd.BatchNorm(normal(2), normal(2) ** 2, normal(2), normal(2)),
            dtd.GlobalAvgPool(),
        ],
    ]
    files = []
    for layers in networks:
        dtd.save(layers, file)
        files.append(file.read_bytes())
        file.unlink()
    return files


def network(data: bytes) -> None:
    """Every array of every record has the bytes that stand in the file; of two equal names the last one counts."""
    layers = dtd.load(held("net.safetensors", data))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found: dict[str, Any] = {}
    for position, record in enumerate(layers):
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            named = {f".{k}": v for k, v in enumerate(value)} if isinstance(value, tuple) else {"": value}
            found |= {f"{position}.{field.name}{k}": v for k, v in named.items() if isinstance(v, np.ndarray)}
    assert found.keys() == header.keys() - {"__metadata__"}
    for name, value in found.items():
        first, last = header[name]["data_offsets"]
        np.testing.assert_array_equal(
            value.ravel(), np.frombuffer(data[start + first : start + last], TYPES[header[name]["dtype"]])
        )


# --------------------------------------------------------------------------------------------------------------- images


def encoded(kind: str, pixels: Any = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    given = random().integers(0, 256, (12, 10, 3), np.uint8) if pixels is None else pixels
    (given if isinstance(given, Image.Image) else Image.fromarray(given)).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(data: bytes) -> None:
    """The same pixels as from Pillow alone, of pictures that it reads as bytes."""
    path = held("x.png", data)
    found = FED.picture(path)
    assert (found.shape, found.dtype) == ((8, 8, 3), np.uint8)
    with Image.open(path) as file:
        upright = ImageOps.exif_transpose(file)
        if upright.mode[0] not in "IF":
            np.testing.assert_array_equal(found, FED.resized(upright.convert("RGB")))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


DEEP = random().integers(0, 1 << 16, (12, 10), np.uint16)


def pictures() -> list[bytes]:
    """One file and more of every format."""
    narrow = DEEP.astype(np.uint8)
    return [
        encoded("PNG", exif=_turned()),
        encoded("PNG", DEEP),
        encoded("PNG", Image.fromarray(narrow).convert("P")),
        encoded("JPEG", exif=_turned()),
        encoded("JPEG", narrow, progressive=True),
        encoded("TIFF"),
        encoded("TIFF", DEEP),
        encoded("TIFF", (DEEP / 65535).astype(np.float32)),
        encoded("TIFF", compression="tiff_lzw"),
        encoded("TIFF", compression="tiff_adobe_deflate"),
        encoded("GIF"),
        encoded("BMP"),
        encoded("PPM"),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("JPEG2000"),
    ]


# --------------------------------------------------------------------------------------------------------------- arrays


def stored() -> list[bytes]:
    files = []
    for values in (random().random((3, 2, 4, 4), np.float32), np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)):
        for array in (values, np.asfortranarray(values)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            files.append(buffer.getvalue())
    return files


def array(data: bytes) -> None:
    """The samples that NumPy reads."""
    path = held("x.npy", data)
    first = samples(str(path))
    if first is not None:
        expected = np.load(path, mmap_mode="r")[:1]
        np.testing.assert_array_equal(first.ravel(), expected.ravel())  # mapped, the type "1f4" adds an axis


def samples(path: str) -> Any:
    """Its first sample, read as a run reads it; None where that is a picture."""
    source = open_source(path)
    shape, dtype = source.sample(FED if source.pictures else None)
    assert len(source) >= 1
    source.identity()
    x = np.zeros((1, *shape), dtype)
    (error,) = source.piece(0, 1, FED if source.pictures else None).read(x)
    if error:
        raise dtd.InputError(error)
    assert not np.isclose(np.asarray(x, np.float64), OUTSIDE, rtol=1e-12, atol=0).any(), "read from another file"
    return None if source.pictures else x


def chunks() -> list[bytes]:
    """Zarr arrays: format 3 (plain, compressed, sharded) and 2, and a group."""
    values, files = random().random((4, 3, 2), np.float32), []
    options: list[dict[str, Any]] = [
        {"compressors": None},
        {"compressors": zarr.codecs.GzipCodec()},
        {"compressors": zarr.codecs.ZstdCodec()},
        {"compressors": zarr.codecs.BloscCodec(), "filters": zarr.codecs.TransposeCodec(order=(1, 0, 2))},
        {"shards": (4, 3, 2), "compressors": zarr.codecs.GzipCodec()},
        {"zarr_format": 2},
    ]
    for option in options:
        made = zarr.create_array("seed", shape=values.shape, chunks=(2, 3, 2), dtype="f4", **option)
        made[:] = values
        files.append(_folder("seed"))
    zarr.create_group("seed", attributes={"a": 1})
    return [*files, _folder("seed")]


def _folder(name: str) -> bytes:
    """A folder as a bundle; it is gone then."""
    whole = {str(p.relative_to(name)): p.read_bytes() for p in sorted(Path(name).rglob("*")) if p.is_file()}
    shutil.rmtree(name)
    return bundled(whole)


def zarr_array(data: bytes) -> None:
    """The samples that Zarr reads."""
    Path("x.zarr").mkdir()
    for name, content in unbundled(data).items():
        _with_content(Path("x.zarr", name), content)
    first = samples("x.zarr")
    if first is not None:
        np.testing.assert_array_equal(first, zarr.open_array("x.zarr", mode="r")[:1])


def _with_content(path: Path, content: bytes) -> None:
    if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def containers() -> list[bytes]:
    """HDF5: plain, chunked and filtered, behind links, and what leads to other files."""
    values = random().random((4, 3, 2), np.float32)

    def made(fill: Callable[[Any], None], **options: Any) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", **options) as file:
            fill(file)
        return buffer.getvalue()

    def several(file: Any) -> None:
        file["group/x"] = values
        file["x"] = h5py.SoftLink("/group/x")

    def outside(file: Any) -> None:
        file["x"] = h5py.ExternalLink("../outside.h5", "x")

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4, 3), "f8")
        layout[:] = h5py.VirtualSource("../outside.h5", "x", (4, 3))
        file.create_virtual_dataset("x", layout)

    return [
        made(lambda file: file.create_dataset("x", data=values)),
        made(lambda f: f.create_dataset("x", data=values, chunks=(1, 3, 2), compression="gzip", shuffle=True)),
        made(lambda f: f.create_dataset("x", data=values, chunks=(2, 3, 2), fletcher32=True), libver="latest"),
        made(lambda f: f.create_dataset("x", data=values, chunks=(2, 3, 2), compression="lzf", maxshape=(None, 3, 2))),
        made(several),
        made(outside),
        made(virtual),
        made(lambda f: f.create_dataset("x", (4, 3), "f8", external=[("../outside.bin", 0, 96)])),
    ]


def hdf5(data: bytes) -> None:
    """The samples that h5py reads, and nothing of the file outside."""
    with h5py.File("../outside.h5", "a") as file:
        if "x" not in file:
            file["x"] = np.full((4, 3), OUTSIDE)
    np.full(12, OUTSIDE).tofile("../outside.bin")
    path = held("x.h5", data)
    first = samples(f"{path}:x")
    if first is not None:
        with h5py.File(path, "r") as file:
            np.testing.assert_array_equal(first, np.asarray(file["x"][:1], first.dtype))


# ----------------------------------------------------------------------------------------------------------------- runs


LAYERS, IMAGES, _ = digits()
OPTIONS: dict[str, Any] = dict(domain=(0.0, 1.0), chunk=2, n_threads=1, channels=Channels(0))


@functools.cache
def begun() -> dict[str, bytes]:
    """A run over four samples in two chunks, file by file."""
    dtd.run(LAYERS, IMAGES[:4], "seed.zarr", **OPTIONS)
    return unbundled(_folder("seed.zarr"))


def manifests() -> list[bytes]:
    """The metadata of a run; what a bundle lacks is as it was written."""
    return [bundled({name: content for name, content in begun().items() if name.endswith("zarr.json")})]


def of_manifest(data: bytes, rng: Random) -> bytes:
    """A bundle of metadata of which one is changed; that of the group often with the digest that it then has."""
    files = unbundled(data)
    try:
        root = json.loads(files["zarr.json"])
        manifest = root["attributes"][KEY]
        del manifest[DIGEST]
    except (ValueError, LookupError, TypeError, RecursionError):
        return mutations.of_bundle(data, rng)
    if rng.random() < 0.5:
        return mutations.of_bundle(data, rng)
    manifest = mutations.of_tree(manifest, rng)
    root["attributes"][KEY] = {**manifest, DIGEST: _digest(manifest)} if isinstance(manifest, dict) else manifest
    return bundled({**files, "zarr.json": json.dumps(root).encode()})


def run(data: bytes) -> None:
    """A run of which one chunk is missing: looked at, and continued; it ends in the rows that it had."""
    whole = begun()
    for name, content in (whole | unbundled(data)).items():
        if name not in ("relevance/c.1.0.0.0", "finished/c.1"):
            _with_content(Path("maps.zarr", name), content)
    refused = None
    for look in (_looked_at, stored_samples):
        try:
            look(Path("maps.zarr"))
        except dtd.DtdError as error:
            refused = error
    dtd.run(LAYERS, IMAGES[:4], "maps.zarr", resume=True, **OPTIONS)
    if refused is not None:
        raise refused
    for name, content in whole.items():
        if "/c." in name:
            assert Path("maps.zarr", name).read_bytes() == content, name


def _looked_at(path: Path) -> None:
    """All that `dtdfast browse` shows."""
    seen = Overview.of(path)
    assert sheet(gathered(seen, None, 2), seen, Style(0.0, 99.0, palette()), None).startswith("<!DOCTYPE html>")


RUNS = ("runs/store.py", "runs/manifest.py", "runs/overview.py", "runs/stored.py", "reports/sheet.py")
DATA = ("runs/sources.py", "runs/arrays.py", "runs/containers.py")
TARGETS: dict[str, Target] = {
    "safetensors": Target(saved, network, mutations.of_safetensors, ("storage.py",)),
    "npy": Target(stored, array, mutations.of_npy, DATA),
    "zarr": Target(chunks, zarr_array, mutations.of_bundle, DATA),
    "hdf5": Target(containers, hdf5, mutations.of_bytes, DATA),
    "images": Target(pictures, picture, mutations.of_png, ("images.py",)),
    "manifest": Target(manifests, run, of_manifest, RUNS),
}
