"""`dtdfast.run`: what it writes is what `explain` says, whatever the chunks, the source and the errors among the
samples.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image

import dtdfast as dtd
from dtdfast import concepts
from dtdfast.data import digits
from dtdfast.images import Preparation
from dtdfast.runs import store
from dtdfast.runs.local import streams
from dtdfast.runs.sources import open_source
from dtdfast.runs.work import LEDGER, halves
from photographs import photographs
from run_support import contents, stored
from support import classifier, segmenter

LAYERS, IMAGES, _ = digits()
BOX = (0.0, 1.0)
FED = Preparation(size=(6, 6))


# ---------------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("chunk", [1, 7, 32, 1000])
def test_bits_are_those_of_explain_whatever_the_chunks(out: Path, chunk: int) -> None:
    x = IMAGES[:32]
    done = dtd.run(LAYERS, x, out, domain=BOX, chunk=chunk, ledger=True, batch_size=None if chunk > 1 else 5)
    explainer = dtd.Explainer(LAYERS, domain=BOX)
    relevance, outputs = explainer.explain(x, return_outputs=True)
    account = explainer.ledger(x)
    np.testing.assert_array_equal(stored(out, "relevance"), relevance)
    np.testing.assert_array_equal(stored(out, "outputs"), outputs)
    np.testing.assert_array_equal(stored(out, "target"), outputs.argmax(axis=1))
    totals = [account.start, account.end, *account.absorbed.values(), account.residual, account.bound]
    np.testing.assert_array_equal(stored(out, "ledger"), np.stack(totals, axis=1))
    assert zarr.open_group(out)["ledger"].attrs["columns"] == list(LEDGER)
    assert (done.path, done.samples, done.explained, list(done.errors())) == (out, 32, 32, [])


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5, 8])
def test_bits_are_those_of_explain_whatever_runs_side_by_side(out: Path, n_threads: int) -> None:
    assert n_threads % streams(n_threads) == 0
    x = IMAGES[:90].copy()
    x[[3, 40, 41]] = np.nan
    good = np.setdiff1d(np.arange(90), [3, 40, 41])
    dtd.run(LAYERS, x, out, domain=BOX, chunk=20, n_threads=n_threads, batch_size=3)
    np.testing.assert_array_equal(stored(out, "relevance")[good], dtd.explain(LAYERS, x[good], domain=BOX))
    assert np.isnan(stored(out, "relevance")[[3, 40, 41]]).all()
    assert np.isnan(stored(out, "ledger")[[3, 40, 41]]).all()


def test_the_oracle_is_stored_in_the_output_s_type(out: Path) -> None:
    dtd.run(LAYERS, IMAGES[:5], out, domain=BOX, chunk=2, backend="oracle")
    expected = dtd.explain(LAYERS, IMAGES[:5], domain=BOX, backend="oracle")
    assert expected.dtype == np.float64
    np.testing.assert_array_equal(stored(out, "relevance"), expected.astype(np.float32))


def test_totals_without_the_ledger_are_its_own(out: Path) -> None:
    dtd.run(LAYERS, IMAGES[:20], out, rules="deep_taylor", domain=BOX, target=3)
    account = dtd.Explainer(LAYERS, rules="deep_taylor", domain=BOX).ledger(IMAGES[:20], 3)
    np.testing.assert_array_equal(stored(out, "ledger"), np.stack([account.start, account.end], axis=1))
    assert (account.start == 0).any()  # a negative output, which this preset clips


@pytest.mark.parametrize("target", ["last", ("last", None), (-1, None), ("last", 2), (-2, 1), (1, 2)])
def test_targets_that_name_a_token(target: Any, out: Path, rng: np.random.Generator) -> None:
    """What is stored is the place that was explained, which `browse` looks up."""
    layers, x = [dtd.Linear(rng.standard_normal((4, 5)))], rng.standard_normal((5, 3, 5)).astype(np.float32)
    dtd.run(layers, x, out, target, chunk=2)
    relevance, outputs = dtd.Explainer(layers).explain(x, target, return_outputs=True)
    token, number = (target, None) if isinstance(target, str) else target
    token = 2 if token == "last" else token % 3
    expected = [(token, one[token].argmax() if number is None else number) for one in outputs]
    np.testing.assert_array_equal(stored(out, "target"), expected)
    np.testing.assert_array_equal(stored(out, "relevance"), relevance)
    entered = [one[place] for one, place in zip(outputs, expected, strict=True)]
    np.testing.assert_array_equal(stored(out, "ledger")[:, 0], entered)


def test_targets(tmp_path: Path, rng: np.random.Generator) -> None:
    each = rng.integers(0, 10, 20)
    dtd.run(LAYERS, IMAGES[:20], tmp_path / "each.zarr", each, domain=BOX, chunk=7)
    np.testing.assert_array_equal(
        stored(tmp_path / "each.zarr", "relevance"), dtd.explain(LAYERS, IMAGES[:20], each, domain=BOX)
    )
    np.testing.assert_array_equal(stored(tmp_path / "each.zarr", "target"), each)
    dtd.run(LAYERS, IMAGES[:5], tmp_path / "alone.zarr", (4,), domain=BOX)
    assert stored(tmp_path / "alone.zarr", "target").tolist() == [4] * 5
    x = rng.standard_normal((5, 3, 6, 6)).astype(np.float32)
    dtd.run(segmenter(rng), x, tmp_path / "one.zarr", (2, 1, 3), chunk=2)
    np.testing.assert_array_equal(stored(tmp_path / "one.zarr", "target"), np.tile([2, 1, 3], (5, 1)))
    for bad in (np.zeros((20, 2), int), np.zeros((20, 10)), np.zeros(3, int), 10, np.full(20, 10)):
        with pytest.raises(dtd.TargetError):
            dtd.run(LAYERS, IMAGES[:20], tmp_path / "bad.zarr", bad)
    assert not (tmp_path / "bad.zarr").exists()


@pytest.mark.parametrize("by", ["relevance", "activation"])
def test_channels_name_the_samples_that_top_samples_does(out: Path, by: str) -> None:
    x = IMAGES[:90].copy()
    x[[3, 40]] = np.nan
    x[50] = x[7]  # of equal scores the earlier sample comes first
    good = np.setdiff1d(np.arange(90), [3, 40])
    dtd.run(LAYERS, x, out, domain=BOX, chunk=20, channels=concepts.Channels(np.int64(3), by))
    expected = concepts.top_samples(LAYERS, x[good], position=3, k=5, by=by, domain=BOX)
    found = concepts.stored_samples(out, 5)
    np.testing.assert_array_equal(found.samples, good[expected.samples])
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.by == by
    assert dict(zarr.open_group(out)["channels"].attrs) == {"position": 3, "by": by, "axis": 1}
    table = stored(out, "channels")
    assert np.isnan(table[[3, 40]]).all()
    np.testing.assert_array_equal(table[50], table[7])


def test_channels_refused(out: Path, tmp_path: Path) -> None:
    for channels, error, message in (
        (3, dtd.RunError, "channels is 3, expected dtdfast.concepts.Channels"),
        (concepts.Channels(99), dtd.LayerError, "stop is 99"),
        (concepts.Channels(3, axis=7), dtd.TargetError, "axis is 7"),
    ):
        with pytest.raises(error, match=message):
            dtd.run(LAYERS, IMAGES[:4], out, domain=BOX, channels=channels)
    assert not out.exists()
    dtd.run(LAYERS, IMAGES[:4], out, domain=BOX)
    with pytest.raises(dtd.RunError, match="holds no channels"):
        concepts.stored_samples(out)
    with pytest.raises(dtd.RunError, match="is not the output of a dtdfast run"):
        concepts.stored_samples(tmp_path / "none.zarr")
    bad = np.full_like(IMAGES[:4], np.nan)
    dtd.run(LAYERS, bad, tmp_path / "bad.zarr", domain=BOX, channels=concepts.Channels(3))
    with pytest.raises(dtd.RunError, match="no sample was explained"):
        concepts.stored_samples(tmp_path / "bad.zarr")


def test_narrow_and_summed(tmp_path: Path, rng: np.random.Generator) -> None:
    layers, x = classifier(rng), rng.standard_normal((9, 3, 6, 6)).astype(np.float32)
    full = dtd.explain(layers, x)
    dtd.run(layers, x, tmp_path / "summed.zarr", sum_channels=True)
    np.testing.assert_array_equal(
        stored(tmp_path / "summed.zarr", "relevance"), full.sum(axis=1, dtype=np.float64).astype(np.float32)
    )
    dtd.run(layers, x, tmp_path / "half.zarr", dtype="float16")
    np.testing.assert_array_equal(stored(tmp_path / "half.zarr", "relevance"), full.astype(np.float16))
    large = [*layers, dtd.Linear(np.eye(5, dtype=np.float32) * 1e6)]
    done = dtd.run(large, x, tmp_path / "beyond.zarr", dtype="float16")
    assert len(list(done.errors())) == 9
    assert all("is beyond float16; store it as float32" in text for _, _, text in done.errors())
    with pytest.raises(dtd.RunError, match="there are none"):
        dtd.run([dtd.Linear(np.eye(3))], np.ones((2, 3)), tmp_path / "flat.zarr", sum_channels=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_halves_are_numpy_s(dtype: type, rng: np.random.Generator) -> None:
    steps = np.arange(3000) * 2.0**-26  # ties among the subnormal numbers, and around the first normal one
    special = [0.0, 2.0**-14, np.nextafter(2.0**-14, 0), 65504, 65519.9, 65520, 1e9, np.inf, np.nan, 1e-30]
    values = np.concatenate([steps, special, 2.0 ** rng.uniform(-30, 18, 2000)]).astype(dtype)
    for signed in (values, -values):
        with np.errstate(over="ignore"):
            expected = signed.astype(np.float16)
            np.testing.assert_array_equal(halves(signed).view(np.uint16), expected.view(np.uint16))


# ------------------------------------------------------------------------------------------------------------ sources


def test_arrays_on_disk_give_what_the_array_gives(tmp_path: Path) -> None:
    x = IMAGES[:20]
    np.save(tmp_path / "x.npy", x)
    zarr.create_array(str(tmp_path / "x.zarr"), data=x, chunks=(8, 1, 8, 8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["some/images"] = x
    with h5py.File(tmp_path / "two.hdf5", "w") as file:
        file["images"], file["labels"] = x, np.arange(20)
    dtd.run(LAYERS, x, tmp_path / "held.zarr", chunk=16)
    expected = contents(tmp_path / "held.zarr")
    for number, name in enumerate(("x.npy", "x.zarr", "x.h5", "x.h5:some/images", "two.hdf5:images")):
        dtd.run(LAYERS, tmp_path / name, tmp_path / f"{number}.zarr", chunk=16)
        assert contents(tmp_path / f"{number}.zarr") == expected, name
    for name, message in (
        ("two.hdf5", "say which dataset: .*images, labels"),
        ("two.hdf5:other", "no dataset 'other'"),
        ("two.hdf5:labels", "expected .n, ...."),
        ("none/*.png", "no images there"),
    ):
        with pytest.raises(dtd.InputError, match=message):
            dtd.run(LAYERS, tmp_path / name, tmp_path / "out.zarr")
    with pytest.raises(FileNotFoundError):
        dtd.run(LAYERS, tmp_path / "none.npy", tmp_path / "out.zarr")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    photographs(tmp_path / "photos", 7, side=48)
    (tmp_path / "photos/below").mkdir()
    (tmp_path / "photos/00003.jpg").rename(tmp_path / "photos/below/three.jpg")
    (tmp_path / "photos/readme.txt").write_text("no image")
    return tmp_path / "photos"


def test_folders_globs_and_lists_of_images(photos: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    layers = classifier(rng)
    names = ["00000.jpg", "00001.jpg", "00002.jpg", "00004.jpg", "00005.jpg", "00006.jpg", "below/three.jpg"]
    x = np.stack([FED.normalised(FED.picture(photos / name)) for name in names])
    relevance = dtd.explain(layers, x, domain=FED.domain)
    (photos / "album.jpg").mkdir()  # no image
    dtd.run(layers, photos, tmp_path / "folder.zarr", preparation=FED, domain=FED.domain, chunk=3)
    np.testing.assert_array_equal(stored(tmp_path / "folder.zarr", "relevance"), relevance)
    assert stored(tmp_path / "folder.zarr", "name").tolist() == names
    globs = [str(photos / name) for name in ("0000[0-2].jpg", "0000[4-6].jpg")]
    for number, data in enumerate((str(photos / "0*.jpg"), sorted(photos.glob("0*.jpg")), globs)):
        path = tmp_path / f"{number}.zarr"
        dtd.run(layers, data, path, preparation=FED, domain=FED.domain)
        np.testing.assert_array_equal(stored(path, "relevance"), relevance[:6])
    several = [photos / names[k] for k in (5, 0, 3)]
    dtd.run(layers, several, tmp_path / "list.zarr", [2, 1, 0], preparation=FED, domain=FED.domain)
    own = dtd.explain(layers, x[[5, 0, 3]], [2, 1, 0], domain=FED.domain)
    np.testing.assert_array_equal(stored(tmp_path / "list.zarr", "relevance"), own)
    dtd.run(layers, {*several}, tmp_path / "set.zarr", preparation=FED, domain=FED.domain)
    np.testing.assert_array_equal(stored(tmp_path / "set.zarr", "relevance"), relevance[[0, 3, 5]])
    dtd.run(layers, photos / "00000.jpg", tmp_path / "one.zarr", preparation=FED, domain=FED.domain)
    np.testing.assert_array_equal(stored(tmp_path / "one.zarr", "relevance"), relevance[:1])
    with pytest.raises(dtd.InputError, match="images need preparation"):
        dtd.run(layers, photos, tmp_path / "unfed.zarr")
    with pytest.raises(dtd.InputError, match="no images there"):
        dtd.run(layers, [str(photos / "0*.jpg"), str(photos / "none*")], tmp_path / "unfed.zarr", preparation=FED)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_arrays_of_pictures_are_fed_as_files_are(out: Path, layout: str, rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (5, 6, 6, 3), np.uint8)
    fed = Preparation(size=(6, 6), channels="bgr", layout=layout)
    layers = classifier(rng) if layout == "nchw" else [dtd.Permute((0, 3, 1, 2)), *classifier(rng)]
    dtd.run(layers, pictures, out, preparation=fed, domain=fed.domain, sum_channels=True)
    x = np.stack([fed.normalised(picture) for picture in pictures])
    summed = dtd.explain(layers, x, domain=fed.domain).sum(axis=1 if layout == "nchw" else 3, dtype=np.float64)
    np.testing.assert_array_equal(stored(out, "relevance"), summed.astype(np.float32))
    with pytest.raises(dtd.InputError, match="are not resized"):
        dtd.run(layers, pictures[:, 1:], out, preparation=fed)
    with pytest.raises(dtd.InputError, match="preparation is for pictures"):
        dtd.run(layers, x, out, preparation=fed)


def test_a_picture_file_of_any_name(tmp_path: Path, out: Path, rng: np.random.Generator) -> None:
    strange = tmp_path / "photos" / b"\xff\xe9.png".decode("utf-8", "surrogateescape")
    strange.parent.mkdir()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(strange)
    dtd.run(classifier(rng), strange.parent, out, preparation=FED, domain=FED.domain)
    assert stored(out, "name").tolist() == [r"\xff\xe9.png"]


# ------------------------------------------------------------------------------------------------------------- errors


def test_bad_samples_are_kept_apart(out: Path) -> None:
    x = IMAGES[:40].copy()
    x[7, 0, 2, 3], x[8, 0, 0, 0], x[31, 0, 1, 1] = np.nan, 3, np.inf
    good = np.setdiff1d(np.arange(40), [7, 8, 31])
    done = dtd.run(LAYERS, x, out, domain=BOX, chunk=16)
    assert [number for number, _, _ in done.errors()] == [7, 8, 31]
    assert "NaN or infinity" in stored(out, "error")[7]
    assert "leaves the box" in stored(out, "error")[8]
    np.testing.assert_array_equal(stored(out, "relevance")[good], dtd.explain(LAYERS, x[good], domain=BOX))
    assert np.isnan(stored(out, "relevance")[[7, 8, 31]]).all()
    assert stored(out, "target")[[7, 8, 31]].tolist() == [-1, -1, -1]
    with pytest.raises(dtd.InputError, match="sample 7: x holds NaN"):
        dtd.run(LAYERS, x, out.with_name("strict.zarr"), domain=BOX, chunk=5, strict=True)
    assert sorted(store.Store(out.with_name("strict.zarr")).finished()) == [0]
    with pytest.raises(dtd.InputError, match=r"sample 7 is bad, as a run without strict has stored .* NaN"):
        dtd.run(LAYERS, x, out, domain=BOX, chunk=16, resume=True, strict=True)


def test_a_list_of_files_is_found_from_anywhere(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Dask's workers, which may run in another folder."""
    monkeypatch.chdir(photos)
    piece = open_source(["00000.jpg", "00001.jpg"]).piece(0, 2, FED)
    monkeypatch.chdir(photos.parent)
    assert piece.read(np.zeros((2, 3, 6, 6), np.float32)) == ["", ""]


class Reading:
    """An array that reads its samples when it is asked for them, of which the third is damaged."""

    def __init__(self, x: NDArray[Any]) -> None:
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: Any) -> NDArray[Any]:
        if 2 in np.atleast_1d(np.arange(len(self.x))[which]):
            raise ValueError("a damaged part")
        return self.x[which]


@pytest.mark.parametrize("chunk", [1, 4, 10])
def test_an_array_that_cannot_read_all_of_its_samples(out: Path, chunk: int) -> None:
    dtd.run(LAYERS, Reading(IMAGES[:10]), out, domain=BOX, chunk=chunk)
    good = np.setdiff1d(np.arange(10), [2])
    assert [i for i, error in enumerate(stored(out, "error")) if "a damaged part" in error] == [2]
    np.testing.assert_array_equal(stored(out, "relevance")[good], dtd.explain(LAYERS, IMAGES[good], domain=BOX))


def test_a_generator_without_end_is_no_list_of_paths(out: Path) -> None:
    with pytest.raises(dtd.InputError, match="expected an array, a path or a list of paths"):
        dtd.run(LAYERS, itertools.count(), out)


def test_zarr_s_older_format_as_the_user_s_default(out: Path) -> None:
    with zarr.config.set({"default_zarr_format": 2}):
        done = dtd.run(LAYERS, IMAGES[:5], out, domain=BOX, chunk=2)
        assert done.often(9)
        (out / "finished/c.1").unlink()
        assert dtd.run(LAYERS, IMAGES[:5], out, domain=BOX, chunk=2, resume=True).explained == 2
    np.testing.assert_array_equal(stored(out, "relevance"), dtd.explain(LAYERS, IMAGES[:5], domain=BOX))


def test_bad_files_are_kept_apart(photos: Path, out: Path, rng: np.random.Generator) -> None:
    cut = (photos / "00001.jpg").read_bytes()
    (photos / "00001.jpg").write_bytes(cut[: len(cut) // 2])
    (photos / "00005.jpg").unlink()
    (photos / "00005.jpg").symlink_to("nowhere")
    done = dtd.run(classifier(rng), photos, out, preparation=FED, domain=FED.domain)
    (_, first, damaged), (_, second, absent) = done.errors()
    assert (first, second) == ("00001.jpg", "00005.jpg")
    assert "cannot be read as an image" in damaged
    assert "No such file" in absent
    assert np.isnan(stored(out, "outputs")).any(axis=1).tolist() == [False, True, False, False, True, False, False]


def test_what_can_be_read_again_leaves_no_error_behind(photos: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """A chunk that was written with an error, but not finished, and whose file has come back."""
    layers, gone = classifier(rng), photos / "00001.jpg"
    options = dict(preparation=FED, domain=FED.domain, chunk=3)
    dtd.run(layers, photos, tmp_path / "whole.zarr", **options)
    begun = dtd.run(layers, photos, tmp_path / "begun.zarr", **options)
    gone.rename(tmp_path / "away.jpg")
    rows = {name: stored(begun.path, name)[:3] for name in ("relevance", "outputs", "target", "ledger")}
    store.Store(begun.path).commit(0, {**rows, "error": np.array(["", "No such file", ""], dtype=object)})
    (begun.path / "finished/c.0").unlink()
    (tmp_path / "away.jpg").rename(gone)
    dtd.run(layers, photos, begun.path, resume=True, **options)
    assert contents(begun.path) == contents(tmp_path / "whole.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dtype="float64"), "dtype is 'float64'"),
        (dict(chunk=0), "chunk is 0"),
        (dict(workers=True), "workers is True"),
        (dict(workers=1, scheduler="tcp://localhost:1"), "give one of them"),
        (dict(kind="gradient"), "kind is not for a run"),
        (dict(rules="dtt"), "not a preset"),
        (dict(mask=IMAGES), "mask= is no option of a run"),
        (dict(layers=[dtd.Given("mask", (3,)), dtd.Add(inputs=(0, -1))]), "the network takes mask= beside its input"),
        (dict(preparation=FED), "preparation is for pictures"),
    ],
)
def test_wrong_options_show_before_anything_is_written(out: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(dtd.DtdError, match=message):
        dtd.run(**{"layers": LAYERS, "data": IMAGES, "out": out, **options})
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("missing", ["zarr", "PIL"])
def test_a_package_that_is_missing_is_named(photos: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As "dtdfast[demo]" leaves it: neither a defect, nor a wrong file."""
    begun, given = photos.parent / "begun.zarr", photos.parent / "given.zarr"
    dtd.run(LAYERS, IMAGES[:3], begun, channels=concepts.Channels(0))
    zarr.save(given, IMAGES[:3])
    layers, out = [dtd.Flatten(), dtd.Linear(np.ones((2, 108)))], photos.parent / "out.zarr"
    monkeypatch.setitem(sys.modules, missing, None)
    calls = [lambda: dtd.run(layers, photos, out, preparation=FED)]
    if missing == "zarr":
        calls += [lambda data=data: dtd.run(LAYERS, data, out) for data in (IMAGES[:3], given)]
        calls += [lambda: concepts.stored_samples(begun), lambda: dtd.run(LAYERS, IMAGES[:3], begun, resume=True)]
    for call in calls:
        with pytest.raises(dtd.BackendError, match=r"this needs \w+: pip install 'dtdfast\[(run|images)\]'"):
            call()
    assert not out.exists()
