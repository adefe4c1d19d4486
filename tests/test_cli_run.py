"""`dtdfast explain MODEL DATA -o NAME.zarr` as a process, and the README's section on scale as it is printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import zarr

import dtdfast as dtd
from dtdfast import cli
from dtdfast.data import digits
from dtdfast.images import Preparation
from onnx_models import model
from photographs import photographs
from run_support import ENVIRONMENT, PATIENCE, run
from support import classifier

README = Path(__file__).parents[1] / "README.md"
FED = Preparation(size=(6, 6), channels="bgr", mean=(104.0, 117.0, 123.0), scale=255.0)
OPTIONS = ("--size", 6, "--channels", "bgr", "--scale", 255, "--mean", "104,117,123")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> list[dtd.Layer]:
    """A network, eight photographs, one of them damaged."""
    monkeypatch.chdir(tmp_path)
    layers = classifier(rng)
    dtd.save(layers, "net.safetensors")
    photographs(Path("photos"), 8, side=48)
    Path("photos/00004.jpg").write_bytes(b"no image")
    return layers


Main = Callable[..., tuple[str, str]]


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    """As run_support.run, but in this process, where only the command's answers matter."""

    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        assert cli.main([*map(str, arguments)]) == code
        return tuple(capsys.readouterr())

    return call


def often(path: str) -> str:
    """The three outputs that were explained most often, as they are printed."""
    targets = zarr.open_group(path)["target"][:]
    counts = Counter(int(t) for t in targets if t >= 0)
    return ", ".join(f"{t} ({n})" for t, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3])


def test_a_folder_with_a_bad_file(here: list[dtd.Layer]) -> None:
    printed, progress = run(
        "explain",
        "net.safetensors",
        "photos",
        "-o",
        "maps.zarr",
        *OPTIONS,
        "--dtype",
        "float16",
        "--sum-channels",
        code=1,
    )
    first, fed, last = printed.splitlines()
    assert first.startswith("00004.jpg: ")
    assert "cannot be read as an image" in first
    assert fed.startswith(
        "fed as 0.875 of the centre, 6 × 6, bgr, nchw; x = (255·p − (104, 117, 123)) / 1 with p from 0 to 1; rules dtd,"
    )
    assert fed.endswith(f"explained most often: output {often('maps.zarr')}")
    assert re.fullmatch(r"8 sample\(s\), [\d.]+ per second, 1 bad: .*maps\.zarr", last)
    assert "8/8" in progress
    assert "image/s" in progress or "s/image" in progress
    good = [i for i in range(8) if i != 4]
    x = np.stack([FED.normalised(FED.picture(Path(f"photos/{i:05}.jpg"))) for i in good])
    maps = dtd.explain(here, x, domain=FED.domain).sum(axis=1, dtype=np.float64).astype(np.float16)
    np.testing.assert_array_equal(zarr.open_group("maps.zarr")["relevance"][:][good], maps)
    _, errors = run("explain", "net.safetensors", "photos", "-o", "strict.zarr", *OPTIONS, "--strict", code=2)
    assert errors.splitlines()[-1].startswith(
        "dtdfast: photos/00004.jpg cannot be read as an image".replace("photos", str(Path.cwd() / "photos"))
    )


def test_help_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    assert "the exit status is 1 if there are such, 2 if all are" in " ".join(capsys.readouterr().out.split())


def test_resume_and_what_is_refused(here: list[dtd.Layer], main: Main) -> None:
    command = ("explain", "net.safetensors", "photos/*.jpg", "-o", "maps.zarr", *OPTIONS, "--target", 3)
    main(*command, code=1)  # one photograph is bad, the others are explained
    _, errors = main(*command, code=2)
    assert "maps.zarr exists; continue it with resume=True (--resume)" in errors
    printed, _ = main(*command, "--resume", code=1)
    assert "8 sample(s), 8 of them before, 1 bad" in printed
    assert (zarr.open_group("maps.zarr")["target"][:] == [3, 3, 3, 3, -1, 3, 3, 3]).all()
    Path("good").mkdir()
    for number in (0, 1):
        shutil.copy(f"photos/0000{number}.jpg", "good")
    main("explain", "net.safetensors", "good", "-o", "good.zarr", *OPTIONS)  # none is bad: 0
    for mode in ("bad.zarr", "bad"):  # all are bad
        main("explain", "net.safetensors", "photos/00004.jpg", "-o", mode, *OPTIONS, code=2)
    main("explain", "net.safetensors", "photos/00003.jpg", "photos/00004.jpg", "-o", "maps", *OPTIONS, code=1)
    _, errors = main(*command, "--resume", "--rules", "lrp-0", code=2)
    assert "options, rules was 'dtd' and is 'lrp-0'" in errors


def test_labels_and_the_summary_as_json(here: list[dtd.Layer], main: Main) -> None:
    Path("labels.txt").write_text("\n".join(f"kind {k}" for k in range(5)))
    command = ("explain", "net.safetensors", "photos", *OPTIONS, "--labels", "labels.txt", "--target", "kind 3")
    printed, _ = main(*command, "-o", "text.zarr", "--no-ledger", code=1)
    assert "explained most often: output 3 kind 3 (7)" in printed
    printed, _ = main(*command, "-o", "json.zarr", "--json", code=1)
    summary = json.loads(printed)
    assert list(summary) == [
        "dtdfast", "model", "rules", "domain", "preparation", "output", "samples", "explained", "seconds", "often",
        "bad",
    ]  # fmt: skip
    assert (summary["samples"], summary["explained"], summary["rules"]) == (8, 8, "dtd")
    assert summary["often"] == [{"target": 3, "label": "kind 3", "count": 7}]
    assert [(of["sample"], of["name"]) for of in summary["bad"]] == [(4, "00004.jpg")]


def test_arrays_of_floats_and_of_pictures(here: list[dtd.Layer], main: Main, rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (5, 6, 6, 3), np.uint8)
    x = np.stack([FED.normalised(picture) for picture in pictures])
    with h5py.File("data.h5", "w") as file:
        file["pictures"], file["x"] = pictures, x
    main("explain", "net.safetensors", "data.h5:x", "-o", "x.zarr", "--ledger")
    group = zarr.open_group("x.zarr")
    np.testing.assert_array_equal(group["relevance"][:], dtd.explain(here, x))
    assert (abs(group["ledger"][:, -2]) <= group["ledger"][:, -1]).all()  # the residual within its bound
    main("explain", "net.safetensors", "data.h5:pictures", "-o", "pictures.zarr", *OPTIONS)
    np.testing.assert_array_equal(
        zarr.open_group("pictures.zarr")["relevance"][:], dtd.explain(here, x, domain=FED.domain)
    )


def test_an_onnx_file_takes_the_size_of_the_array(here: list[dtd.Layer], rng: np.random.Generator) -> None:
    proto = model(
        "a = Conv(x, w) y = GlobalAveragePool(a) z = Flatten(y)",
        given="float[5,3,3,3] w",
        x="float[N,3,H,W] x",
        y="float[N,5] z",
    )
    onnx.save(proto, "open.onnx")
    x = rng.random((3, 3, 9, 7), dtype=np.float32)
    np.save("x.npy", x)
    assert cli.main(["explain", "open.onnx", "x.npy", "-o", "x.zarr", "--domain", "nonnegative"]) == 0
    expected = dtd.explain(dtd.from_onnx("open.onnx", sample_shape=(3, 9, 7)), x, domain="nonnegative")
    np.testing.assert_array_equal(zarr.open_group("x.zarr")["relevance"][:], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("photos", "-o", "maps", "--resume"),
            "--resume is for a run over a data set: write it to NAME.zarr, not to maps",
        ),
        (("photos/00000.jpg", "-o", "maps", "--sum-channels"), "--sum-channels is for a run"),
        (("photos", "-o", "maps.zarr", "--labels", "labels.txt", "--size", "6"), "the labels file has 2 lines"),
        (("photos", "-o", "maps.zarr", "--labels", "labels.txt", "--target", "ash,elm"), "--target names 2 outputs"),
        (("photos", "-o", "maps.zarr", "--target", "99", "--size", "6"), "--target is 99"),
        (("photos", "-o", "maps.zarr", "--rules", "dtd,lrp-0"), "--rules dtd,lrp-0: a run into NAME.zarr stores"),
        (("photos", "-o", "maps.ZARR", "--rules", "dtd,lrp-0"), "--rules dtd,lrp-0: a run into NAME.zarr stores"),
        (("photos", "-o", "maps.zarr", "--rules", "dtd,best"), "'best' is none of dtd, lrp-0"),
        (("photos", "-o", "maps.zarr", "--top", "2"), "--top is for pictures"),
        (("photos", "-o", "maps.zarr", "--smooth", "2"), "--smooth is for pictures"),
        (("x.npy", "-o", "maps.zarr", "--mean", "1"), "--mean is for images"),
        (("x.npy", "-o", "maps.zarr", "--crop", "1"), "--crop is for images"),
        (("x.npy", "-o", "maps.zarr", "--domain", "pixels"), "--domain pixels is for images"),
        (("x.npy", "-o", "maps.zarr", "--workers", "1", "--scheduler", "tcp://a:1"), "give one of them"),
        (("none", "-o", "maps.zarr"), "none: no images there"),
        (("none.npy", "-o", "maps.zarr"), "none.npy"),
        (("broken.npy", "-o", "maps.zarr"), "broken.npy cannot be read as an array"),
    ],
)
def test_errors_are_one_line(
    here: list[dtd.Layer],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
    rng: np.random.Generator,
) -> None:
    np.save("x.npy", rng.random((3, 3, 6, 6)))
    Path("broken.npy").write_bytes(b"no array")
    Path("labels.txt").write_text("ash\nelm\n")
    assert cli.main(["explain", "net.safetensors", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("dtdfast: ")
    assert captured.err.count("\n") == 1
    assert not Path("maps.zarr").exists()


def test_the_readme_s_section_on_scale(tmp_path: Path) -> None:
    """Every command and every line of Python, in order, in one folder."""
    section = README.read_text(encoding="utf-8").split("## Data sets", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh", "python"]
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dtdfast").write_text(
        f"#!{sys.executable}\nimport sys\nfrom dtdfast.cli import main\n\nif __name__ == '__main__':\n    "
        "sys.exit(main())\n"
    )
    (tools / "dtdfast").chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    for number, (kind, text) in enumerate(blocks):
        script = tmp_path / f"{number}.{kind}"
        script.write_text(
            text if kind == "python" else "\n".join(line for line in text.splitlines() if not line.startswith("pip "))
        )
        command = [sys.executable, script] if kind == "python" else ["bash", "-euo", "pipefail", script]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
    layers, images, _ = digits()
    expected = dtd.explain(layers, images, domain=(0.0, 1.0))
    for name in ("maps.zarr", "again.zarr"):
        np.testing.assert_array_equal(zarr.open_group(tmp_path / name)["relevance"][:], expected)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "lazy.zarr")[:], expected)
