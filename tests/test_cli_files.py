"""What files may do to `dtdfast`, and it to them: odd pictures, damaged data, other people's files, and options at the
wrong place.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import dtdfast as dtd
from dtdfast import cli
from dtdfast.errors import InputError, StorageError
from dtdfast.images import Preparation
from onnx_models import model

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 24), np.uint8)
PHOTO = RNG.integers(0, 256, (20, 24, 3), np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network of three channels, a photograph and an array."""
    monkeypatch.chdir(tmp_path)
    weight = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)
    dtd.save([dtd.Conv(weight), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()], "net.safetensors")
    Image.fromarray(PHOTO).save("photo.png")
    np.save("x.npy", RNG.random((4, 3, 8, 8), np.float32))
    return tmp_path


def explain(*arguments: Any, out: str = "out") -> int:
    return cli.main(["explain", "net.safetensors", *map(str, arguments), "-o", out])


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused call says: one line, no traceback."""
    error = capsys.readouterr().err
    assert error.startswith("dtdfast: ")
    assert error.count("\n") == 1
    return error


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ----------------------------------------------------------------------------------------------------------- pictures

DEEP: dict[str, tuple[str, Any]] = {  # as deep as PHOTO's first colour, in 0 to 1
    "16-bit grey PNG": ("a.png", GREY.astype(np.uint16) * 257),
    "16-bit grey TIFF": ("a.tif", GREY.astype(np.uint16) * 257),
    "32-bit TIFF": ("a.tiff", GREY.astype(np.int32) * (2**31 // 255)),
    "float TIFF": ("a.tif", GREY.astype(np.float32) / 255),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_pictures_are_scaled_by_their_type(kind: str, tmp_path: Path) -> None:
    name, pixels = DEEP[kind]
    Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(GREY).save(tmp_path / "plain.png")
    fed = Preparation(size=(20, 24), crop=1.0, channels="gray")
    plain, deep = (fed.picture(tmp_path / n).astype(int) for n in ("plain.png", name))
    assert abs(deep - plain).max() <= 1
    assert np.ptp(deep) > 200


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_pictures(mode: str, tmp_path: Path) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.fromarray(PHOTO).convert(mode).save(tmp_path / name)
    expected = np.asarray(Image.fromarray(PHOTO).convert(mode).convert("RGB"))
    fed = Preparation(size=(20, 24), crop=1.0)
    np.testing.assert_array_equal(fed.picture(tmp_path / name), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(size=8), dict(size=(8,)), dict(size=(8, 8.5)), dict(size="88"), dict(crop="1"), dict(crop=None),
        dict(channels="BGR"), dict(channels=3), dict(layout="NHWC"), dict(mean="a"), dict(mean=(None,)), dict(mean=()),
        dict(std=()), dict(std=np.ones((3, 1))), dict(std=(1, 2)), dict(scale=(1,)), dict(scale=np.inf),
    ],
    ids=str,
)  # fmt: skip
def test_a_preparation_that_is_none(wrong: dict[str, Any]) -> None:
    """Capitals were taken: BGR as RGB, and NHWC as NHWC but for the axis of sums over channels."""
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is "):
        Preparation(**{"size": (8, 8), **wrong})


def test_a_preparation_takes_lists_and_one_number() -> None:
    plain = Preparation(size=(8, 9), mean=(0.5,), std=(0.25, 0.5, 1.0))
    assert Preparation(size=np.array([8, 9]), mean=0.5, std=[0.25, 0.5, 1.0]) == plain  # type: ignore[arg-type]


def test_floats_beyond_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"expected 0 \(black\) to 1 \(white\)"):
        Preparation(size=(8, 8)).picture(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_with_colours_apart(bits: int, tmp_path: Path) -> None:
    """Pillow takes each half of a number of 16 bits for a pixel."""
    planes = PHOTO.transpose(2, 0, 1).astype("<u2" if bits == 16 else "u1") * (257 if bits == 16 else 1)
    size, at = planes[0].nbytes, 8 + 2 + 9 * 12 + 4
    tags = [
        (256, 3, 1, 24), (257, 3, 1, 20), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, at + 6),
        (277, 3, 1, 3), (279, 4, 3, at + 18), (284, 3, 1, 2),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<2H2I", *tag) for tag in tags) + bytes(4)
    places = struct.pack("<3H6I", bits, bits, bits, *(at + 30 + k * size for k in range(3)), *[size] * 3)
    (tmp_path / "a.tif").write_bytes(head + places + planes.tobytes())
    fed = Preparation(size=(20, 24), crop=1.0)
    if bits == 8:
        np.testing.assert_array_equal(fed.picture(tmp_path / "a.tif"), PHOTO)
    else:
        with pytest.raises(InputError, match="its colours of more than eight bits lie apart"):
            fed.picture(tmp_path / "a.tif")


def test_the_whole_of_a_picture_whatever_rounding_says() -> None:
    """Of 108 pixels in width, 108 − (108/191)·191 is below 0."""
    whole = Image.fromarray(PHOTO).resize((108, 204))
    height = 108 / 191 * 255
    expected = whole.resize((191, 255), 3, box=(0, (204 - height) / 2, 108, (204 + height) / 2))
    np.testing.assert_array_equal(Preparation(size=(255, 191), crop=1.0).resized(whole), np.asarray(expected))


def test_a_picture_is_no_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert explain("script.png", "--size", 8) == 2
    assert "cannot be read as an image" in refusal(capsys)


def test_a_decompression_bomb(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 0, 0, 0, 0)
    Path("bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )
    monkeypatch.setenv("DTDFAST_MEMORY", "64M")
    with pytest.raises(InputError, match="13000"):
        Preparation(size=(8, 8)).picture(Path("bomb.png"))


@pytest.mark.parametrize(
    ("declared", "layout", "fits"), [("N,3,8,8", "nchw", True), ("N,8,8,3", "nhwc", True), ("N,8,8,3", "nchw", False)]
)
def test_the_layout_is_what_the_file_declares(here: Path, declared: str, layout: str, fits: bool, capsys: Any) -> None:
    first = "p = Transpose<perm = [0, 3, 1, 2]>(x) a = Conv(p, w)" if declared.endswith("3") else "a = Conv(x, w)"
    body = f"{first} r = Relu(a) q = GlobalAveragePool(r) y = Flatten(q)"
    onnx.save(model(body, given="float[5,3,3,3] w", x=f"float[{declared}] x", y="float[N,5] y"), "net.onnx")
    assert cli.main(["explain", "net.onnx", "photo.png", "-o", "found"]) == 0
    told = cli.main(["explain", "net.onnx", "photo.png", "--layout", layout, "-o", "told"])
    if not fits:
        assert told == 2
        assert "layout" in capsys.readouterr().err.splitlines()[-1]
        return
    assert told == 0
    found, again = (json.loads(Path(f, "summary.json").read_text())["images"] for f in ("found", "told"))
    assert found == again


# ---------------------------------------------------------------------------------------------------- files of others


def test_other_peoples_files_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("maps.zarr.part", "saved.safetensors.part", "out/summary.json", "out/photo-heatmap.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine")
    dtd.save(dtd.load("net.safetensors"), "saved.safetensors")
    assert explain("x.npy", out="maps.zarr") == 0
    assert explain("photo.png", "--size", 8) == 2
    assert "was not made by dtdfast" in capsys.readouterr().err
    for name in ("maps.zarr.part", "saved.safetensors.part", "out/summary.json", "out/photo-heatmap.png"):
        assert Path(name).read_text() == "mine"
    assert explain("photo.png", "--size", 8, out="own") == 0
    assert explain("photo.png", "--size", 8, out="own") == 0  # what it made itself, it replaces


def test_pictures_of_others_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A PNG is no sign of who made it, and neither are our words in another file."""
    of_others = PngInfo()
    of_others.add_text("Software", "another program")
    Path("own").mkdir()
    for name, given in (("photo-heatmap.png", None), ("photo-overlay.png", of_others)):
        Image.fromarray(GREY).save(Path("own", name), pnginfo=given)
        before = Path("own", name).read_bytes()
        assert explain("photo.png", "--size", 8, out="own") == 2
        assert f"{name} is there and was not made by dtdfast" in capsys.readouterr().err
        assert Path("own", name).read_bytes() == before
        Path("own", name).write_bytes(b"tEXtSoftware\0dtdfast 0")
        assert explain("photo.png", "--size", 8, out="own") == 2
        Path("own", name).unlink()
    assert explain("photo.png", "--size", 8, out="own") == 0


def test_a_folder_of_others_is_no_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("maps.zarr").mkdir()
    Path("maps.zarr/notes.txt").write_text("mine")
    assert explain("x.npy", out="maps.zarr") == 2
    refusal(capsys)
    assert everything(Path("maps.zarr")) == {"notes.txt": b"mine"}


REFUSED: dict[str, tuple[Callable[[], object], list[Any]]] = {
    "labels": (lambda: Path("labels.txt").write_text("a\nb"), ["photo.png", "--size", 8, "--labels", "labels.txt"]),
    "an empty array": (lambda: Path("bad.npy").write_bytes(b""), ["bad.npy"]),
    "a damaged array": (lambda: Path("bad.npy").write_bytes(Path("x.npy").read_bytes()[:200]), ["bad.npy"]),
    "objects": (lambda: np.save("bad.npy", np.array([{}], object), allow_pickle=True), ["bad.npy"]),
    "several arrays": (lambda: np.savez("bad.npz", a=GREY, b=GREY), ["bad.npz"]),
    "a damaged HDF5 file": (lambda: Path("bad.H5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), ["bad.H5"]),
    "no model": (lambda: None, ["nothing.npy"]),
    "a pipe": (lambda: os.mkfifo("pipe.npy"), ["pipe.npy"]),
    "chunk": (lambda: None, ["x.npy", "--chunk", "0"]),
    "the domain": (lambda: None, ["x.npy", "--domain", "-1,x"]),
}


@pytest.mark.parametrize(
    ("kind", "out"), [(k, o) for k in REFUSED for o in ("fresh", "fresh.zarr") if (k, o) != ("labels", "fresh.zarr")]
)
def test_a_refused_call_leaves_nothing(here: Path, kind: str, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, arguments = REFUSED[kind]
    make()
    before = {p: p.stat().st_mtime_ns for p in here.iterdir()}
    assert explain(*arguments, out=out) == 2
    assert {p: p.stat().st_mtime_ns for p in here.iterdir()} == before
    assert capsys.readouterr().err.splitlines()[-1].startswith("dtdfast: ")


def test_negative_numbers_are_words_of_their_own(here: Path) -> None:
    assert explain("photo.png", "--size", 8, "--domain", "-3,3", "--mean", "-1,-1,-1", "--std", "1") == 0
    first = json.loads(Path("out/summary.json").read_text())["images"]
    assert explain("photo.png", "--size", 8, "--domain=-3,3", "--mean=-1,-1,-1", "--std=1") == 0
    assert json.loads(Path("out/summary.json").read_text())["images"] == first


def test_one_bad_photograph_stops_nothing_and_all_bad_is_no_success(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.png").write_bytes(b"no image")
    assert explain("bad.png", "photo.png", "--size", 8) == 1
    images = json.loads(Path("out/summary.json").read_text())["images"]
    assert sum("output" in entry for entry in images) == 1
    capsys.readouterr()
    assert explain("bad.png", "--size", 8, out="none") != 0
    np.save("nan.npy", np.full((3, 3, 8, 8), np.nan, np.float32))
    assert explain("nan.npy", out="nan.zarr") != 0


def test_names_that_are_no_text(here: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(PHOTO).save(name)
    assert explain(name, "--size", 8) == 0
    (entry,) = json.loads(Path("out/summary.json").read_text(encoding="utf-8"))["images"]
    assert "caf" in json.dumps(entry)


@pytest.mark.parametrize("link", ["external storage", "external link", "virtual"])
def test_hdf5_reads_no_other_files_unasked(here: Path, link: str, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.load("x.npy")
    with h5py.File("other.h5", "w") as other:
        other["x"] = x
    Path("raw.bin").write_bytes(x.tobytes())
    with h5py.File("x.h5", "w") as file:
        if link == "external storage":
            file.create_dataset("x", x.shape, "f4", external=[("raw.bin", 0, x.nbytes)])
        elif link == "external link":
            file["x"] = h5py.ExternalLink("other.h5", "x")
        else:
            layout = h5py.VirtualLayout(x.shape, "f4")
            layout[:] = h5py.VirtualSource("other.h5", "x", x.shape)
            file.create_virtual_dataset("x", layout)
    assert explain("x.h5:x", out="maps.zarr") == 2
    assert "--external" in refusal(capsys)
    assert explain("x.h5:x", "--external", out="maps.zarr") == 0


def test_a_manifest_edited_by_hand_is_noticed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("x.npy", "--chunk", 2, out="maps.zarr") == 0
    manifest = Path("maps.zarr/zarr.json")
    text = manifest.read_text()
    manifest.write_text(text.replace('"rules": "dtd"', '"rules": "lrp-0"'))
    assert manifest.read_text() != text
    capsys.readouterr()
    assert explain("x.npy", "--chunk", 2, "--resume", out="maps.zarr") == 2
    refusal(capsys)


def test_save_writes_whole_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(here)
    with pytest.raises(StorageError):
        dtd.save(dtd.load("net.safetensors"), here)  # a folder
    assert everything(here) == before


def test_the_demo_names_its_formats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(here)
    assert cli.main(["demo", "-o", "x.xyz"]) == 2
    assert "xyz" in refusal(capsys)
    assert everything(here) == before


def test_plan_shows_what_explain_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "net.safetensors", "--size", "8"]) == 0
    assert "ZBox" in capsys.readouterr().out
    assert cli.main(["plan", "net.safetensors", "--size", "8", "--domain", "real"]) == 0
    assert "WSquare" in capsys.readouterr().out
    assert cli.main(["plan", "net.safetensors", "--size", "8", "--rules", "lrp-0"]) == 0
    assert "Zero" in capsys.readouterr().out
