"""Saved layer lists: equal records and bits back; everything else refused with a StorageError."""

import dataclasses
import json
import stat
import sys

import numpy as np
import pytest

from dtdfast import layers as records
from dtdfast import storage
from dtdfast.errors import BackendError, LayerError, StorageError
from dtdfast.layers import RECORDS
from dtdfast.record import Memory, immutable

pytest.importorskip("safetensors")

RNG = np.random.default_rng(0)


def array(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


EVERY_KIND = [
    records.Embedding(array(5, 3)),
    records.Permute((0, 2, 1), name="to channels"),
    records.Conv(array(4, 3, 3), array(4), stride=2, padding=((1, 0),), dilation=1, groups=1, inputs=1,
        name="größe ≤ 3"),
    records.ReLU(),
    records.ConvTranspose(array(4, 2, 3, dtype=np.float64), stride=2, output_padding=1, padding=1, groups=2),
    records.Activation("clip", alpha=-0.1, beta=1e-308),
    records.Activation("silu"),
    records.Activation("clip", alpha=-np.inf, beta=2.0),
    records.Activation("prelu", slopes=array(4)),
    records.MaxPool(3, stride=2, padding=1, dilation=2, ceil_mode=True),
    records.MaxPool((3, 2)),
    records.AvgPool((2, 2), padding=((0, 1), (1, 0)), count_include_pad=False),
    records.SumPool(2),
    records.GlobalAvgPool(),
    records.BatchNorm(array(4), array(4) ** 2, weight=array(4), eps=1e-3),
    records.Scale(array(4), array(4)),
    records.Preparation(array(4), array(4)),
    records.LRN(5, alpha=2e-4, beta=0.5, k=2.0),
    records.Add(inputs=(0, records.INPUT)),
    records.Mul(inputs=(3, 14)),
    records.Mul(0.25, inputs=(3, 14)),
    records.MatMul(transpose_b=True, scale=8**-0.5, inputs=(3, 14)),
    records.MatMul(inputs=(records.INPUT, 0)),
    records.LayerNorm((-2, -1), array(3, 4), array(3, 4), eps=1e-12),
    records.LayerNorm(),
    records.RMSNorm(1, array(4, dtype=np.float64)),
    records.GroupNorm(2, array(4), array(4)),
    records.InstanceNorm(bias=array(4)),
    records.Concat(axis=2, inputs=(0, 1, 2)),
    records.Dropout(),
    records.Upsample((2, 3)),
    records.Pad(((1, 2),), value=-0.0),
    records.Slice(2, 1, None, 2),
    records.Reshape((2, -1)),
    records.Flatten(),
    records.Linear(np.array([[np.float32(1e-45), -0.0]], np.float32), array(1)),
    records.Given("attention_mask", (5,), mask=True),
    records.Given("position_ids", (5, 2), integer=True),
    records.Constant(array(2, 3)),
    records.Reduce("max", (1, -1), keepdims=True),
    records.Gather((2, 0, 0), -1),
    records.Expand((2, 3, 4)),
    records.Resample((array(3, 2), None)),
    records.Softmax(log=True),
    records.Softmax(-1, mask=np.tri(3, dtype=bool)),
    records.Softmax(2, mask=np.zeros((1, 3, 1), bool)),
]  # fmt: skip


def raw(header, data=b""):
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(entries=(), version=1, tensors=None, **more):
    """A safetensors file with any layer list in its header."""
    content = json.dumps({"version": version, "layers": list(entries), **more})
    n_bytes = max((info["data_offsets"][1] for info in (tensors or {}).values()), default=0)
    return raw({"__metadata__": {"dtdfast": content}, **(tensors or {})}, bytes(n_bytes))


def entry(record, /, **fields):
    return {"record": record, "fields": {"inputs": None, "name": None, **fields}}


def tensor(*shape, dtype="F32", start=0):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + 4 * int(np.prod(shape))]}


SIZES = {"sample": [8, 6], "numbers": [], "fixed": "", "same": False}


def assert_equal(loaded, saved):
    assert [type(record) for record in loaded] == [type(record) for record in saved]
    for new, old in zip(loaded, saved, strict=True):
        for f in dataclasses.fields(old):
            a, b = getattr(new, f.name), getattr(old, f.name)
            assert type(a) is type(b), (old, f.name)
            if isinstance(old, records.Resample) and f.name == "weights":
                assert [v is None for v in a] == [v is None for v in b]
            else:
                a, b = (a,), (b,)
            for one, other in zip(a, b, strict=True):
                if isinstance(other, np.ndarray):
                    assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
                    assert not one.flags.writeable
                else:
                    assert repr(one) == repr(other), (old, f.name)  # repr tells -0.0 from 0.0


def test_round_trip_of_every_record(tmp_path):
    assert {type(record).__name__ for record in EVERY_KIND} == set(RECORDS)
    storage.save(EVERY_KIND, tmp_path / "net.safetensors")
    assert_equal(storage.load(tmp_path / "net.safetensors"), EVERY_KIND)


@pytest.mark.parametrize(
    ("saved", "record"),
    [(entry("Mul"), records.Mul()), (entry("Softmax", axis=2), records.Softmax(2))],
    ids=["Mul without share", "Softmax without log"],
)
def test_files_from_before_a_field(saved, record, tmp_path):
    (tmp_path / "net").write_bytes(described([saved]))
    assert_equal(storage.load(tmp_path / "net"), [record])


def test_equal_lists_make_equal_files(tmp_path):
    for name in "ab":
        storage.save(EVERY_KIND, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_empty_list(tmp_path):
    storage.save([], tmp_path / "net")
    assert storage.load(str(tmp_path / "net")) == []


def test_permissions_are_those_of_any_new_file(tmp_path):
    storage.save(EVERY_KIND, tmp_path / "net")
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "net").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    storage.save(EVERY_KIND, tmp_path / "net")

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="no space"):
        storage.save([], tmp_path / "net")
    assert_equal(storage.load(tmp_path / "net"), EVERY_KIND)
    assert [file.name for file in tmp_path.iterdir()] == ["net"]


def test_a_model_is_not_saved(tmp_path):
    with pytest.raises(LayerError, match=r"layers is a Linear, expected a list .* which from_torch"):
        storage.save(records.Linear(np.ones((2, 3))), tmp_path / "net")


def test_only_records_are_saved(tmp_path):
    class Mine(records.ReLU):
        pass

    with pytest.raises(LayerError, match=r"layer 1 \(Mine\)"):
        storage.save([records.ReLU(), Mine()], tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_every_truncation_is_refused(tmp_path):
    storage.save(EVERY_KIND, tmp_path / "net")
    whole = (tmp_path / "net").read_bytes()
    for n in [*range(0, len(whole), 37), len(whole) - 1]:
        (tmp_path / "net").write_bytes(whole[:n])
        with pytest.raises(StorageError, match="net"):
            storage.load(tmp_path / "net")
    (tmp_path / "net").write_bytes(whole + b"\0")
    with pytest.raises(StorageError, match="header promises"):
        storage.load(tmp_path / "net")


def test_damaged_headers_are_refused_or_read_never_worse(tmp_path):
    storage.save(EVERY_KIND, tmp_path / "net")
    whole = (tmp_path / "net").read_bytes()
    n_header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for i in rng.integers(0, n_header, rng.integers(1, 4)):
            damaged[i] = rng.integers(0, 256)
        (tmp_path / "net").write_bytes(damaged)
        try:
            loaded = storage.load(tmp_path / "net")
        except StorageError:
            refused += 1
        else:
            assert len(loaded) == len(EVERY_KIND)
    assert refused > 300


REFUSED = {
    "empty": (b"", "0 bytes long"),
    "pickle": (b"\x80\x04\x95" + bytes(40), "cut short or not a safetensors file"),
    "header_beyond_the_file": ((1 << 60).to_bytes(8, "little") + b"{}", "cut short"),
    "header_no_json": (raw(b"hello"), "not a safetensors file"),
    "header_too_deep": (raw(b"[" * 100_000), "corrupt or not"),
    "header_a_list": (raw([]), "no safetensors header"),
    "foreign": (raw({"__metadata__": {"format": "pt"}, "w": tensor(2)}, bytes(8)), "without a dtdfast layer list"),
    "no_metadata": (raw({}), "without a dtdfast layer list"),
    "metadata_no_json": (raw({"__metadata__": {"dtdfast": "{"}}), "corrupt"),
    "metadata_a_list": (raw({"__metadata__": {"dtdfast": "[]"}}), "format version None"),
    "later_version": (described(version=2), "format version 2"),
    "layers_no_list": (raw({"__metadata__": {"dtdfast": '{"version":1,"layers":3}'}}), "layer list cannot be read"),
    "unknown_key": (described(extra=1), "layer list cannot be read"),
    **{
        f"sizes_{name}": (described([entry("ReLU")], sizes=sizes), "the sizes of its import cannot be read")
        for name, sizes in {
            "no_object": [8, 6],
            "of_nothing": SIZES | {"sample": []},
            "of_zero": SIZES | {"numbers": [["a", 0.0, None]]},
            "not_finite": SIZES | {"numbers": [["a", 1e999, 3]]},
            "no_text": SIZES | {"fixed": 1},
        }.items()
    },
    "entry_no_object": (described(["ReLU"]), "layer 0: None is not a record"),
    "unknown_record": (described([entry("ReLU"), entry("Evil")]), "layer 1: 'Evil' is not a record"),
    "record_is_no_name": (described([{"record": ["ReLU"], "fields": {}}]), "is not a record"),
    "unknown_field": (described([entry("ReLU", hook="os.system")]), "unknown or missing fields: hook"),
    "missing_field": (described([{"record": "ReLU", "fields": {"name": None}}]), "unknown or missing fields: inputs"),
    "array_in_json": (described([entry("Linear", weight=[[1.0]], bias=None)]), ("unknown or missing fields: bias, "
    "weight")),
    "missing_array": (described([entry("Linear")]), "layer 0: .*weight"),
    "invalid_record": (described([entry("MaxPool", kernel=0, stride=None, padding=0, dilation=1, ceil_mode=False)]),
    "kernel is 0"),
    "wrong_type": (described([entry("Activation", kind={}, alpha=None, beta=None)]), "layer 0: "),
    "number_too_large": (described([entry("Pad", padding=1, value=10**400)]), "layer 0: "),
    "infinite": (described([entry("Pad", padding=1, value=float("inf"))]), "expected a finite number"),
    "unused_tensor": (described([entry("ReLU")], tensors={"0.weight": tensor(2)}), "no layer uses"),
    "wrong_rank": (described([entry("Linear")], tensors={"0.weight": tensor(2)}), "expected 2"),
    "integers": (described([entry("Linear")], tensors={"0.weight": tensor(1, 2, dtype="I32")}), ("type 'I32', expected "
    "F32 or F64")),
    "no_shape": (described([entry("Linear")], tensors={"0.weight": {**tensor(1, 1), "shape": None}}), "shape None"),
    "negative_shape": (described([entry("Linear")], tensors={"0.weight": {**tensor(1, 1), "shape": [-1, -1]}}),
    r"shape \[-1"),
    "many_axes": (described([entry("Linear")], tensors={"0.weight": tensor(*[1] * 70)}), r"shape \[1, 1"),
    "huge_shape": (described([entry("Linear")], tensors={"0.weight": {**tensor(1, 1), "shape": [1 << 33, 1 << 33]}}),
    "array elements"),
    "shape_beyond_data": (described([entry("Linear")], tensors={"0.weight": {**tensor(1, 1), "shape": [1 << 20, 8]}}),
    "promises"),
    "overlap": (described([entry("Linear")], tensors={"0.weight": tensor(1, 1), "0.bias": tensor(1)}), "promises"),
    "offsets": (described([entry("Linear")], tensors={"0.weight": {**tensor(1, 1), "data_offsets": [4, 0]}}),
    "promises|corrupt"),
    "holes": (raw({"__metadata__": {"dtdfast": json.dumps({"version": 1, "layers": [entry("Linear")]})},
                   "0.weight": {**tensor(1, 1), "data_offsets": [2, 6]}}, bytes(4)), "corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        storage.load(tmp_path / "net")


@pytest.mark.parametrize("limit", ["MAX_HEADER", "MAX_LAYERS", "MAX_ELEMENTS"])
def test_limits_hold_for_saving_and_loading(tmp_path, monkeypatch, limit):
    storage.save(EVERY_KIND, tmp_path / "net")
    monkeypatch.setattr(storage, limit, 20)
    with pytest.raises(StorageError, match="expected at most 20; give"):
        storage.load(tmp_path / "net")
    with pytest.raises(StorageError, match="expected at most 20; split"):
        storage.save(EVERY_KIND, tmp_path / "net")


def test_a_huge_promise_allocates_nothing(tmp_path):
    import tracemalloc

    (tmp_path / "net").write_bytes(
        described([entry("Linear")], tensors={"0.weight": {**tensor(1, 1), "shape": [1 << 15, 1 << 15]}})
    )
    storage._safetensors()
    tracemalloc.start()
    with pytest.raises(StorageError, match="promises"):
        storage.load(tmp_path / "net")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(BackendError, match=r"pip install 'dtdfast\[io\]'"):
        storage.load(tmp_path / "net")


def test_nobody_can_write_to_what_importers_share():
    array = np.asarray(Memory(np.ones(3)))
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)
    assert immutable(array)
    assert not immutable(np.ones(3))
