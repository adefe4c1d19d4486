"""Data sets and outputs of runs that lie about themselves: refused by name, before anything is read beyond them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

import dtdfast as dtd
from dtdfast.concepts import Channels, stored_samples
from dtdfast.data import digits
from dtdfast.runs.overview import Overview
from dtdfast.runs.sources import open_source
from dtdfast.runs.store import DIGEST, KEY, _digest

FORMS: dict[str, dict[str, Any]] = {
    "format 3": {"compressors": zarr.codecs.BloscCodec()},
    "in shards": {"compressors": zarr.codecs.BloscCodec(), "shards": (4, 30, 2)},
    "format 2": {"compressors": numcodecs.Blosc(), "zarr_format": 2},
}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def compressed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A Zarr array in chunks of Blosc, and what it holds."""
    x = np.random.default_rng(0).random((4, 30, 2), np.float32)
    array = zarr.create_array(tmp_path / "x", shape=x.shape, chunks=(1, 30, 2), dtype="f4", **request.param)
    array[:] = x
    return tmp_path / "x", x


def read(path: Path, n: int) -> tuple[list[str], Any]:
    found = np.zeros((n, 30, 2), np.float32)
    return open_source(str(path)).piece(0, n, None).read(found), found


def test_chunks_of_blosc(compressed: tuple[Path, Any]) -> None:
    path, x = compressed
    for n in (1, 4):  # a part of a shard, and all of it
        errors, found = read(path, n)
        assert errors == [""] * n
        np.testing.assert_array_equal(found, x[:n])


@pytest.mark.parametrize("unpacked", [1 << 20, 100_000_000])
def test_a_chunk_of_blosc_is_read_to_its_end_and_not_beyond(compressed: tuple[Path, Any], unpacked: int) -> None:
    """The second size reads so far beyond the chunk that the process would end."""
    path, _ = compressed
    for file in path.rglob("*"):
        if file.is_file() and not file.name.startswith((".z", "zarr.")):
            content = bytearray(file.read_bytes())
            struct.pack_into("<I", content, 4, unpacked)
            struct.pack_into("<I", content, 12, unpacked + 16)
            file.write_bytes(content)
    for n in (1, 4):
        errors, found = read(path, n)
        assert f"its header says {unpacked + 16}" in errors[0]
        assert not found[0].any()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not")  # in a standard
def test_blosc_under_another_name_is_not_read(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x", shape=(4, 3), dtype="f4", compressors=zarr.codecs.BloscCodec())
    text = (tmp_path / "x/zarr.json").read_text()
    (tmp_path / "x/zarr.json").write_text(text.replace('"blosc"', '"numcodecs.blosc"'))
    with pytest.raises(dtd.InputError, match=r"codec 'numcodecs\.blosc', which is not read"):
        open_source(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ([1 << 70, 3], [2, 3], "expected at most 4294967296 samples"),
        ([4, 1 << 20], [1, 1], "keeps each sample in 1048576 chunks"),
    ],
)
def test_sizes_beyond_reason(tmp_path: Path, shape: list[int], chunks: list[int], message: str) -> None:
    zarr.create_array(tmp_path / "x", shape=(4, 3), chunks=(2, 3), dtype="f4", zarr_format=2)
    metadata = json.loads((tmp_path / "x/.zarray").read_text())
    (tmp_path / "x/.zarray").write_text(json.dumps(metadata | {"shape": shape, "chunks": chunks}))
    with pytest.raises(dtd.InputError, match=message):
        open_source(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples": "4"}, "its manifest was changed"),
        ({"samples": 1 << 70}, "its manifest was changed"),
        ({"chunk": 0}, "its manifest was changed"),
        ({"chunk": 5}, "its manifest was changed"),
        ({"samples": 3, "chunk": 3}, "is damaged"),
        ({"preparation": [1]}, "preparation"),
    ],
)
def test_a_manifest_with_the_right_digest(out: Path, changed: dict[str, Any], message: str) -> None:
    """Whoever writes a manifest can write its digest as well."""
    layers, images, _ = digits()
    dtd.run(layers, images[:4], out, domain=(0.0, 1.0), chunk=2, channels=Channels(0))
    root = json.loads((out / "zarr.json").read_text())
    manifest = root["attributes"][KEY] | changed
    del manifest[DIGEST]
    root["attributes"][KEY] = manifest | {DIGEST: _digest(manifest)}
    (out / "zarr.json").write_text(json.dumps(root))
    for look in (Overview.of, stored_samples):
        with pytest.raises(dtd.RunError, match=message):
            look(out)


def test_a_target_that_no_output_is(out: Path) -> None:
    layers, images, _ = digits()
    done = dtd.run(layers, images[:4], out, domain=(0.0, 1.0))
    zarr.open_group(out)["target"][:] = 10  # one beyond the last
    with pytest.raises(dtd.RunError, match="it names outputs that are not there"):
        Overview.of(out)
    assert done.often(1) == [(10, 4)]
