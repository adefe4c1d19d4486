"""How `dtdfast` ends where something outside it fails or interrupts it: one line, a status, and nothing of others
lost.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

import dtdfast as dtd
from dtdfast import cli
from dtdfast.images import Preparation
from dtdfast.runs import lock as locks
from dtdfast.runs.lock import locked
from run_support import COMMAND, ENVIRONMENT, INTERRUPTIBLE, PATIENCE, run, start, stored, wait_for

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 24, 3), np.uint8)
X = RNG.random((6, 3, 8, 8), np.float32)
NET: list[dtd.Layer] = [
    dtd.Conv(RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)),
    dtd.ReLU(),
    dtd.GlobalAvgPool(),
    dtd.Flatten(),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network of three channels, a photograph and an array."""
    monkeypatch.chdir(tmp_path)
    dtd.save(NET, "net.safetensors")
    Image.fromarray(PHOTO).save("photo.png")
    np.save("x.npy", X)
    return tmp_path


def explain(*arguments: Any, out: str = "out") -> int:
    return cli.main(["explain", "net.safetensors", *map(str, arguments), "-o", out])


# ------------------------------------------------------------------------------------------------------------ streams


def printed_into(target: Any, *arguments: str) -> tuple[int, str]:
    """Exit status and errors of the command, whose output goes to `target`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{INTERRUPTIBLE}\n{COMMAND}", *arguments],
        env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_nobody_reads_the_output(here: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert printed_into(writing, "inspect", "net.safetensors") == (141, "")
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is one of Linux")
def test_the_output_cannot_be_written(here: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert printed_into(full, "inspect", "net.safetensors") == (2, "dtdfast: [Errno 28] No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows gives every process its streams")
def test_streams_that_are_closed(here: Path) -> None:
    """Nothing is shown, everything is done, and no file of a run has the number of a stream."""
    ends = (
        "assert all(os.readlink(f'/proc/self/fd/{n}') == os.devnull for n in range(3))"
        if Path("/proc").exists()
        else ""
    )
    code = f"import os; from dtdfast.cli import main; code = main(); {ends}; raise SystemExit(code)"
    arguments = ["explain", "net.safetensors", "x.npy", "-o", "out.zarr"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=ENVIRONMENT, preexec_fn=lambda: os.closerange(0, 3), check=False
    )
    assert done.returncode == 0
    assert cli.main([*arguments, "--resume"]) == 0


def test_characters_that_the_terminal_does_not_know(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONIOENCODING", "ascii")
    printed, _ = run("explain", "net.safetensors", "photo.png", "--size", 8, "-o", "out")
    assert r"\u03a3R = " in printed
    Image.fromarray(PHOTO).save("grün 😀.png")
    summary = json.loads(run("explain", "net.safetensors", "grün 😀.png", "--size", 8, "-o", "out", "--json")[0])
    assert summary["images"][0]["file"] == "grün 😀.png"
    printed, errors = run("explain", "--help")
    assert (r"scale\xb7p" in printed, errors) == (True, "")


def test_labels_and_names_that_names_of_files_cannot_hold(here: Path) -> None:
    """Where the system's encoding is ASCII, a label or a photograph's name of other letters was a defect."""
    Path("photo.png").rename("grün.png")
    Path("labels.txt").write_text(
        "\n".join(("a", "b", "c", "d", "e")).translate(str.maketrans("abcde", "äцßdê")), "utf-8"
    )
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = (
        "-m",
        "dtdfast",
        "explain",
        "net.safetensors",
        "grün.png",
        "-o",
        "out",
        "--labels",
        "labels.txt",
        "--top",
        "5",
    )
    done = subprocess.run([sys.executable, *words], env=ascii_only, capture_output=True, text=True, check=False)
    assert (done.returncode, "\\u0446" in done.stdout) == (0, True), done.stderr


def test_a_disk_that_takes_no_more_leaves_no_picture(here: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    limit += "sys.dont_write_bytecode = True"  # which Python would cut off without a word
    for command in (("explain", "net.safetensors", "photo.png", "--size", 8, "-o", "out"), ("demo", "-o", "demo.png")):
        _, errors = run(*command, code=2, before=limit)
        assert errors.startswith("dtdfast: [Errno 27] File too large")
    assert sorted(path.name for path in here.iterdir()) == ["net.safetensors", "photo.png", "x.npy"]


def test_ctrl_c_between_photographs(here: Path) -> None:
    images = [f"{number}.png" for number in range(400)]
    for name in images:
        os.link("photo.png", name)
    process = start("explain", "net.safetensors", *images, "--size", 8, "-o", "out")
    wait_for(lambda: Path("out/3-overlay.png").exists(), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    entries = json.loads(Path("out/summary.json").read_text())["images"]
    assert errors.splitlines()[-1] == f"dtdfast: interrupted; {len(entries)} of 400 image(s) done: out"
    assert all(Path("out", e["overlay"]).exists() for e in entries)
    assert not [path for path in Path("out").iterdir() if path.name.startswith(".")]


# ----------------------------------------------------------------------------------------------------------- pictures


def test_a_tiff_whose_white_is_zero(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (8, 8), np.uint8)
    fed = Preparation(size=(8, 8), crop=1.0, channels="gray")
    deep: dict[str, Any] = {"16 bits": grey.astype(np.uint16) * 257, "floats": grey.astype(np.float32) / 255}
    for name, pixels in deep.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.tif", tiffinfo={262: 0})
        np.testing.assert_array_equal(fed.picture(tmp_path / f"{name}.tif"), 255 - grey)


@pytest.mark.parametrize("bits", [4095, 255, 1000])
def test_a_pgm_says_its_own_white(bits: int, tmp_path: Path) -> None:
    values = RNG.integers(0, bits + 1, (8, 8))
    body = values.astype(">u2" if bits > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 %d\n" % bits + body)
    found = Preparation(size=(8, 8), crop=1.0, channels="gray").picture(tmp_path / "a.pgm")
    assert abs(found - values * (255 / bits)).max() <= 0.51  # rounded to 16 bits first, and then to 8


def test_pictures_of_images_with_one_name(here: Path) -> None:
    others = ["a/photo.png", "photo.jpg", "photo-1.png", "Photo.png", "a/line\nbreak.png", f"a/{'n' * 240}.png"]
    Path("a").mkdir()
    for name in others:
        Image.fromarray(RNG.integers(0, 256, (20, 24, 3), np.uint8)).save(name)
    assert explain("photo.png", *others, "--size", 8) == 0
    entries = json.loads(Path("out/summary.json").read_text())["images"]
    for kind in ("heatmap", "overlay"):
        names = [entry[kind] for entry in entries]
        assert len({name.casefold() for name in names}) == len(names) == 7
        assert len({Path("out", name).read_bytes() for name in names}) == 7
    assert "photo-1-heatmap.png" in [entry["heatmap"] for entry in entries]  # of photo-1.png, whose name is its own


# ------------------------------------------------------------------------------------------------------------- layout


def test_the_layout_is_what_a_saved_list_begins_with(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dtd.save([dtd.Permute((0, 3, 1, 2)), *NET], "last.safetensors")
    dtd.save([dtd.Conv(RNG.standard_normal((5, 1, 3, 3))), *NET[1:]], "grey.safetensors")
    dtd.save([dtd.Flatten(), dtd.Linear(RNG.standard_normal((3, 192)))], "unknown.safetensors")
    dtd.save([dtd.Conv(RNG.standard_normal((5, 4, 3, 3))), *NET[1:]], "four.safetensors")
    assert explain("photo.png", "--size", 8) == 0
    for name, code, message in (
        ("last", 0, ""),
        ("grey", 0, ""),
        ("unknown", 2, "does not tell where its input has the channels; say --layout"),
        ("four", 2, "its first layers take 4 channel(s)"),
    ):
        capsys.readouterr()
        assert cli.main(["explain", f"{name}.safetensors", "photo.png", "--size", "8", "-o", name]) == code
        assert message in capsys.readouterr().err
        assert Path(name).exists() == (code == 0)
    first, last = (
        json.loads(Path(folder, "summary.json").read_text())["images"][0]["output"] for folder in ("out", "last")
    )
    assert first == last
    assert cli.main(["explain", "last.safetensors", "photo.png", "--size", "8", "--layout", "nchw", "-o", "wrong"]) == 2


# --------------------------------------------------------------------------------------------------- arrays of others


def test_a_damaged_chunk_is_of_bad_samples(here: Path) -> None:
    zarr.create_array("x.zarr", data=X, chunks=(2, 3, 8, 8))
    Path("x.zarr/c/1/0/0/0").write_bytes(b"damaged")
    with h5py.File("x.h5", "w") as file:
        stored_at = file.create_dataset("x", data=X, chunks=(2, 3, 8, 8), fletcher32=True).id.get_chunk_info(1)
    with Path("x.h5").open("r+b") as raw:
        raw.seek(stored_at.byte_offset + 8)
        raw.write(b"damaged!")
    expected = dtd.explain(NET, X)
    for name in ("x.zarr", "x.h5"):
        assert explain(name, out=f"maps-{name}.zarr") == 1  # some samples are bad
        assert [bool(error) for error in stored(Path(f"maps-{name}.zarr"), "error")] == [
            False,
            False,
            True,
            True,
            False,
            False,
        ]
        np.testing.assert_array_equal(
            stored(Path(f"maps-{name}.zarr"), "relevance")[[0, 1, 4, 5]], expected[[0, 1, 4, 5]]
        )


class Harm:
    """What a pickle may be made of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_a_zarr_array_is_no_program(here: Path, place: str) -> None:
    metadata = dict(
        zarr_format=2,
        shape=[2, 3, 8, 8],
        chunks=[2, 3, 8, 8],
        dtype="<f4",
        compressor=None,
        fill_value=0,
        order="C",
        filters=None,
    )
    metadata[place] = [{"id": "pickle"}] if place == "filters" else {"id": "pickle"}
    Path("x.zarr").mkdir()
    Path("x.zarr/.zarray").write_text(json.dumps(metadata))
    Path("x.zarr/0.0.0.0").write_bytes(pickle.dumps(Harm()))
    assert explain("x.zarr", out="maps.zarr") == 2
    assert not Path("harmed").exists()
    assert not Path("maps.zarr").exists()


def test_links_within_an_hdf5_file_are_followed_and_others_not(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("other.h5", "w") as other:
        other["x"] = X
    with h5py.File("x.h5", "w") as file:
        file["x"], file["soft"], file["group"] = X, h5py.SoftLink("/x"), h5py.ExternalLink("other.h5", "/")
        file["over"], file["circle"] = h5py.SoftLink("/group/x"), h5py.SoftLink("/circle")
    assert explain("x.h5:soft", out="soft.zarr") == 0
    for name, message in (("group/x", "--external"), ("over", "--external"), ("circle", "in a circle")):
        capsys.readouterr()
        assert explain(f"x.h5:{name}", out="maps.zarr") == 2
        assert message in capsys.readouterr().err
    assert explain("x.h5:over", "--external", out="over.zarr") == 0


def test_masked_arrays_are_refused(out: Path) -> None:
    masked = np.ma.masked_array(X, X > 0.9)
    with pytest.raises(dtd.InputError, match="masked"):
        dtd.run(NET, masked, out)
    with pytest.raises(dtd.InputError, match="masked"):
        dtd.explain(NET, masked)
    with pytest.raises(dtd.InputError, match="masked"):
        dtd.explain(NET, [*masked])
    with pytest.raises(dtd.LayerError, match="masked"):
        dtd.Linear(np.ma.masked_array(np.eye(3), np.eye(3) > 0))


# ---------------------------------------------------------------------------------------------------- files of others


def test_a_lock_of_others_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    for lock, data, out in (("maps.zarr.lock", "x.npy", "maps.zarr"), ("out/.dtdfast.lock", "photo.png", "out")):
        Path(lock).write_text("mine")
        capsys.readouterr()
        assert explain(data, *(() if out == "maps.zarr" else ("--size", 8)), out=out) == 2
        assert "move it away" in capsys.readouterr().err
        assert Path(lock).read_text() == "mine"


def test_a_lock_that_its_holder_removes_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening and our locking it; else two would hold a lock, one of them without a name."""
    path, taken, really = tmp_path / "lock", list[int](), locks._lock

    def late(file: int) -> None:
        if not taken:
            path.unlink()
        taken.append(file)
        really(file)

    monkeypatch.setattr(locks, "_lock", late)
    with locked(path, tmp_path / "out"):
        assert path.exists()
    assert len(taken) == 2


def test_an_empty_file_of_others_is_held_and_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with locked(path, tmp_path / "out"):
        assert path.read_bytes() == b""
    assert path.exists()


def test_one_process_at_a_time_writes_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    with locked(Path("out/.dtdfast.lock"), Path("out")):
        assert explain("photo.png", "--size", 8) == 2
    assert "another process is writing there" in capsys.readouterr().err
    assert list(Path("out").iterdir()) == []


def test_one_process_at_a_time_writes_a_run_whatever_it_is_called(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("link.zarr").symlink_to("maps.zarr")
    assert explain("x.npy", out="link.zarr") == 0  # where nothing was yet
    assert Path("link.zarr").is_symlink()
    with locked(Path("maps.zarr.lock"), Path("maps.zarr")):
        capsys.readouterr()
        assert explain("x.npy", "--resume", out="link.zarr") == 2
    assert "another process is writing there" in capsys.readouterr().err


def test_a_picture_that_is_explained_is_not_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("photo.png", "--size", 8, out=".") == 0
    before = Path("photo-heatmap.png").read_bytes()
    assert explain("photo.png", "photo-heatmap.png", "--size", 8, out=".") == 2
    assert "is to be explained and would be replaced" in capsys.readouterr().err
    assert Path("photo-heatmap.png").read_bytes() == before


def test_the_demo_replaces_its_own_picture_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("photo.png").read_bytes()
    assert cli.main(["demo", "-o", "photo.png"]) == 2
    assert "was not made by dtdfast" in capsys.readouterr().err
    assert Path("photo.png").read_bytes() == before
    assert [cli.main(["demo", "-o", "own.png"]) for _ in range(2)] == [0, 0]


def test_save_replaces_what_a_link_points_to_and_no_device(here: Path) -> None:
    Path("link.safetensors").symlink_to("net.safetensors")
    dtd.save(NET[:1], "link.safetensors")
    assert Path("link.safetensors").is_symlink()
    assert len(dtd.load("net.safetensors")) == 1
    os.mkfifo("pipe")
    for place in ("/dev/null", "pipe"):
        with pytest.raises(dtd.StorageError, match="cannot be written"):
            dtd.save(NET, place)


@pytest.mark.parametrize(
    "options", [("--threads", "3000"), ("--target", "9"), ("--workers", "0"), ("--domain", "1"), ("--chunk", "x")]
)
def test_wrong_options_of_a_run_in_one_line(
    here: Path, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain("x.npy", *options, out="maps.zarr") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dtdfast: ")
    assert captured.err.count("\n") == 1
    assert not Path("maps.zarr").exists()


def test_a_chunk_longer_than_the_data_takes_no_more_room(here: Path) -> None:
    assert explain("x.npy", "--chunk", 10**15, out="maps.zarr") == 0
    assert stored(Path("maps.zarr"), "relevance").shape == X.shape
    assert sum(path.stat().st_size for path in Path("maps.zarr/relevance").glob("c.*")) == X.nbytes
