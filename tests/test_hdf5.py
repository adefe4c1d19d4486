"""Where a dataset of an HDF5 file is kept, found without opening it, and the ways that lead to it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dtdfast import InputError
from dtdfast.runs import hdf5
from dtdfast.runs.hdf5 import dataset_of, datasets, opened


def written(path: Path, n_attributes: int, **options: Any) -> None:
    with h5py.File(path, "w", **options) as file:
        file["group/plain"] = np.arange(3.0)
        file["group/same"] = file["group/plain"]
        file["group/soft"] = h5py.SoftLink("/virtual")
        file["packed"] = np.arange(3.0)
        file.create_dataset("outside", (3,), "f8", external=[("outside.raw", 0, 24)])
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout)
        for name in ("group", "group/plain", "outside", "virtual"):
            for number in range(n_attributes):  # more than the header's first block holds
                file[name].attrs[f"attribute {number}"] = "a text" * number


@pytest.mark.parametrize(("n_attributes", "ordered"), [(0, False), (1, False), (7, False), (7, True), (40, False)])
@pytest.mark.parametrize("userblock", [0, 1024])
@pytest.mark.parametrize("libver", [("earliest", "v108"), "v110", "v114", "latest"])
def test_a_header_says_what_is_kept_elsewhere(
    tmp_path: Path, libver: Any, userblock: int, n_attributes: int, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    monkeypatch.setattr(h5py.get_config(), "track_order", ordered)  # of attributes too: their messages have a number
    try:
        written(path, n_attributes, libver=libver, userblock_size=userblock)
    except (ValueError, TypeError, OSError):
        assert libver[0] == "earliest"  # which knows no virtual dataset
        written(path, n_attributes, libver=("earliest", "latest"), userblock_size=userblock)
    with h5py.File(path, "r") as file:
        assert dataset_of(file, "group/plain", external=False).name == "/group/plain"
        with pytest.raises(InputError, match=":/virtual is a virtual dataset, which names other files"):
            dataset_of(file, "group/soft", external=False)
        monkeypatch.setattr(h5py.Group, "__getitem__", lambda *_: pytest.fail("it was opened"))
        assert sorted(datasets(file)) == ["group/plain", "outside", "packed", "virtual"]
        for name, kind in (("virtual", "a virtual dataset"), ("outside", "a dataset in external files")):
            with pytest.raises(InputError, match=f"x.h5:{name} is {kind}, which names other files"):
                dataset_of(file, name, external=False)


@pytest.mark.parametrize("name", [".", "/", "", "group/.", "./group/plain", "group//plain", "none", "group/plain/x"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    written(tmp_path / "x.h5", 0)
    with h5py.File(tmp_path / "x.h5", "r") as file:
        found = dataset_of(file, name, external=False)
        assert isinstance(found, h5py.Dataset) == (name.endswith("plain")), found


def test_no_more_than_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, where the system reads but a part at once; zeros behind the end; no more than there can be."""
    path = str(tmp_path / "x.h5")
    written(Path(path), 0)

    class Short(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(buffer[:5])

    class Within(hdf5._Within, Short):
        pass

    monkeypatch.setattr(hdf5, "_Within", Within)
    with opened(path, external=False) as file:
        assert file.filename == path
        np.testing.assert_array_equal(dataset_of(file, "packed", external=False), np.arange(3.0))
    with hdf5._Within(path) as raw:
        raw.seek(raw.size - 3)
        end = raw.read(3)
        raw.seek(raw.size - 3)
        room = bytearray(8)
        assert raw.readinto(room) == 8
        assert room == end + bytes(5)
        with pytest.raises(OSError, match="bytes are asked of a file of"):
            raw.readinto(bytearray(raw.size + 1))


@pytest.mark.skipif(sys.platform == "win32", reason="HDF5 takes no locks there")
def test_a_file_that_is_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    written(path, 0)
    with h5py.File(path, "a", locking=True), pytest.raises(OSError, match="somebody writes it"):
        hdf5._Within(str(path))
    with opened(str(path), external=False), pytest.raises(BlockingIOError):
        h5py.File(path, "a", locking=True)
