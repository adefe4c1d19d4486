"""Runs that were stopped and go on: the same bytes as without the stop, and nothing but the same run continues one.

DTDFAST_LONG=1: a third chunk, which writes what the first one does, is stopped between all writes, not the last alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

import dtdfast as dtd
from dtdfast import concepts
from dtdfast.data import digits
from dtdfast.images import Preparation
from dtdfast.runs import store
from dtdfast.runs.lock import locked
from dtdfast.runs.manifest import described, model_digest
from run_support import LONG, contents, stored
from support import classifier

LAYERS, IMAGES, _ = digits()
BOX = (0.0, 1.0)


class Crash(BaseException):
    """What no handler catches: the process is gone."""


def crashing(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> list[int]:
    """Raise once `after` files or folders have been brought to the disk; returns what counts them."""
    count: list[int] = []
    kept = store._to_disk

    def failing(handle: int) -> None:
        if len(count) == after:
            raise error
        count.append(handle)
        kept(handle)

    monkeypatch.setattr(store, "_to_disk", failing)
    return count


def test_stopped_between_any_two_writes_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = IMAGES[:9].copy()
    x[5] = np.nan  # so that there is an error to be written
    with monkeypatch.context() as patch:
        count = crashing(patch, -1, Crash())
        whole = dtd.run(LAYERS, x, tmp_path / "whole.zarr", domain=BOX, chunk=4)
    # in each chunk four arrays, the mark and perhaps errors: a file and a folder each
    first, second, third = [10, 12, 10]
    assert len(count) == first + second + third
    for after in range(len(count)) if LONG else (*range(first + second), len(count) - 2, len(count) - 1):
        path = tmp_path / f"{after}.zarr"
        with monkeypatch.context() as patch:
            crashing(patch, after, Crash())
            with pytest.raises(Crash):
                dtd.run(LAYERS, x, path, domain=BOX, chunk=4)
        # the mark is in its place before its folder is brought to the disk, the last step of a chunk
        complete = (after >= first - 1) + (after >= first + second - 1) + (after >= first + second + third - 1)
        assert len(store.Store(path).finished()) == complete
        done = dtd.run(LAYERS, x, path, domain=BOX, resume=True)
        assert contents(path) == contents(whole.path)
        assert done.explained == (9, 5, 1, 0)[complete]


def test_channels_are_those_of_an_uninterrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = concepts.Channels(3)
    whole = dtd.run(LAYERS, IMAGES[:9], tmp_path / "whole.zarr", domain=BOX, chunk=4, channels=channels)
    path = tmp_path / "stopped.zarr"
    with monkeypatch.context() as patch:
        crashing(patch, 15, Crash())  # within the second chunk
        with pytest.raises(Crash):
            dtd.run(LAYERS, IMAGES[:9], path, domain=BOX, chunk=4, channels=channels)
    assert concepts.stored_samples(path, 9).samples.shape == (16, 4)  # of the first chunk
    with pytest.raises(dtd.RunError, match="stored, channels, by was 'relevance' and is 'activation'"):
        dtd.run(LAYERS, IMAGES[:9], path, domain=BOX, resume=True, channels=concepts.Channels(3, "activation"))
    dtd.run(LAYERS, IMAGES[:9], path, domain=BOX, resume=True, channels=channels)
    assert contents(path) == contents(whole.path)


def test_a_full_disk_says_how_to_go_on(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        crashing(patch, 25, OSError(28, "No space left on device"))
        with pytest.raises(
            dtd.RunError, match=r"No space left on device; 2 of 5 chunks of .* are finished; continue with resume=True"
        ):
            dtd.run(LAYERS, IMAGES[:20], out, domain=BOX, chunk=4)
    dtd.run(LAYERS, IMAGES[:20], out, domain=BOX, resume=True)
    np.testing.assert_array_equal(stored(out, "relevance"), dtd.explain(LAYERS, IMAGES[:20], domain=BOX))


def test_leftovers_of_a_killed_process_are_swept(out: Path) -> None:
    part, empty = out.with_name(".out.zarr.abc.part"), out.with_name(".out.zarr.def.part")
    empty.mkdir()
    beginning = dtd.run(LAYERS, IMAGES[:9], out.with_name(".out.zarr.zarr.abc.part"), chunk=4).path  # as out.zarr.zarr
    dtd.run(LAYERS, IMAGES[:9], part, chunk=4)
    dtd.run(LAYERS, IMAGES[:9], out, chunk=4)
    assert {*out.parent.iterdir()} == {out, beginning}
    expected = contents(out)
    (out / "finished/c.1").unlink()
    (out / "relevance/c.1.0.0.0").write_bytes(b"half")
    (out / "relevance/c.1.0.0.abc.partial").write_bytes(b"half")
    dtd.run(LAYERS, IMAGES[:9], out, resume=True)
    assert contents(out) == expected


MISMATCHES: list[tuple[str, dict[str, Any]]] = [
    ("options, rules was 'dtd' and is 'lrp-0'", dict(rules="lrp-0")),
    (r"options, domain was \[0.0, 1.0\] and is 'real'", dict(domain="real")),
    ("target was None and is 3", dict(target=3)),
    ("stored, dtype was 'float32' and is 'float16'", dict(dtype="float16")),
    ("stored, ledger was False and is True", dict(ledger=True)),
    ("chunk was 4 and is 5", dict(chunk=5)),
    ("backend was 'cpu' and is 'oracle'", dict(backend="oracle")),
    (r"data, first, middle and last was '\w+' and is '\w+'", dict(data=IMAGES[1:10])),
    ("samples was 9 and is 8", dict(data=IMAGES[:8])),
    (r"model was '\w+' and is '\w+'", dict(layers=[*LAYERS, dtd.Dropout()])),
]


@pytest.mark.parametrize(("message", "change"), MISMATCHES)
def test_another_run_is_refused_with_what_differs(out: Path, message: str, change: dict[str, Any]) -> None:
    options = dict(layers=LAYERS, data=IMAGES[:9], domain=BOX, chunk=4)
    dtd.run(out=out, **options)
    before = contents(out)
    with pytest.raises(dtd.RunError, match=f"was begun otherwise and cannot be continued so: .*{message}"):
        dtd.run(out=out, resume=True, **{**options, **change})
    with pytest.raises(dtd.RunError, match="exists; continue it with resume=True"):
        dtd.run(out=out, **options)
    assert contents(out) == before


def test_another_instruction_set_or_version_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtd.run(LAYERS, IMAGES[:9], out)
    with monkeypatch.context() as patch:
        patch.setattr("dtdfast.runs.manifest.build_config", lambda: {"instruction set": "abacus"})
        with pytest.raises(dtd.RunError, match=r"instruction set was '\w+' and is 'abacus'"):
            dtd.run(LAYERS, IMAGES[:9], out, resume=True)
    monkeypatch.setattr("dtdfast.runs.manifest.__version__", "99")
    with pytest.raises(dtd.RunError, match=r"versions, dtdfast was .* and is '99'"):
        dtd.run(LAYERS, IMAGES[:9], out, resume=True)


def test_targets_of_another_integer_type_are_the_same(out: Path) -> None:
    dtd.run(LAYERS, IMAGES[:9], out, list(range(9)))
    dtd.run(LAYERS, IMAGES[:9], out, np.arange(9, dtype=np.uint8), resume=True)


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "other.zarr"))
    (tmp_path / "folder.zarr").mkdir()
    for name in ("other.zarr", "folder.zarr"):
        with pytest.raises(dtd.RunError, match=f"{name} is not the output of a dtdfast run"):
            dtd.run(LAYERS, IMAGES[:9], tmp_path / name, resume=True)


def test_other_pictures_of_the_same_names_and_sizes_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """As those of another film, without compression."""
    fed, layers = Preparation(size=(6, 6)), classifier(rng)
    for film in range(2):
        for name in "abc":
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{name}.bmp")
        if not film:
            dtd.run(layers, tmp_path, tmp_path / "out.zarr", preparation=fed, chunk=2)
    with pytest.raises(dtd.RunError, match="data, first, middle and last was"):
        dtd.run(layers, tmp_path, tmp_path / "out.zarr", preparation=fed, resume=True)


def test_the_model_digest_sees_every_weight_and_setting(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    other = weight.copy()
    other[0, 0, 0, 0] = np.nextafter(other[0, 0, 0, 0], np.float32(9))
    lists = [
        [dtd.Conv(weight)],
        [dtd.Conv(other)],
        [dtd.Conv(weight, stride=2)],
        [dtd.Conv(weight), dtd.ReLU()],
        [dtd.Conv(weight, name="a")],
    ]
    assert len({model_digest(layers) for layers in lists}) == len(lists)
    assert model_digest([dtd.Conv(weight.copy())]) == model_digest(lists[0])


def test_rules_of_every_form_are_described() -> None:
    def by_hand(position: int, record: dtd.Layer) -> dtd.Rule | None:
        return dtd.Epsilon(0.5) if isinstance(record, dtd.Linear) else None

    found = described(by_hand, LAYERS)
    linear = [str(i) for i, record in enumerate(LAYERS) if isinstance(record, dtd.Linear)]
    assert found == dict.fromkeys(linear, repr(dtd.Epsilon(0.5)))
    assert described({3: dtd.ZPlus()}, LAYERS) == {"3": repr(dtd.ZPlus())}
    assert described(dtd.Gamma(0.5), LAYERS) != described(dtd.Gamma(0.25), LAYERS)
    boxes = [dtd.ZBox(0, 1), *(dtd.ZBox(np.zeros(2), high) for high in (np.ones(2), [1, 2], [1, 2]))]
    assert len({str(described({0: box}, LAYERS)) for box in boxes}) == 3
    assert re.fullmatch(r"[0-9a-f]{64}", described(np.zeros(3), LAYERS)["sha256"])


HOLDER = """
import sys
from pathlib import Path
from dtdfast.runs.lock import locked
with locked(Path(sys.argv[1]), Path("out")):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_lock_ends_with_its_process(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(dtd.RunError, match="another process is writing there"), locked(path, tmp_path / "out"):
            pass
        if killed:
            holder.kill()
        else:
            holder.communicate("\n")
    assert path.exists() == killed
    with locked(path, tmp_path / "out"):
        pass
    assert not path.exists()
