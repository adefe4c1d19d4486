"""The memory budget: half of what there is, or what DTDFAST_MEMORY says; what `explain` keeps within it."""

from __future__ import annotations

from pathlib import Path

import pytest

import dtdfast as dtd
from dtdfast.budget import budget, machine_memory, readable, require
from dtdfast.cache import Cache
from dtdfast.cpu.arenas import ArenaPool, Shelf

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("2K", 2**11), ("1.5M", 3 * 2**19), ("3g", 3 * 2**30), ("4 GiB", 2**32), ("0.5T", 2**39)],
)
def test_the_variable_overrides(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("DTDFAST_MEMORY", text)
    assert budget() == size


@pytest.mark.parametrize("text", ["lots", "-1", "0", "1e9", "1T5", "nan", "inf", "٣", "1" * 40])
def test_a_size_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DTDFAST_MEMORY", text)
    with pytest.raises(dtd.MemoryBudgetError, match=r"DTDFAST_MEMORY.*is not a size.*16G"):
        budget()


def test_half_of_the_memory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for unset in (None, "", " "):
        monkeypatch.delenv("DTDFAST_MEMORY", raising=False)
        if unset is not None:
            monkeypatch.setenv("DTDFAST_MEMORY", unset)
        assert budget() == machine_memory() // 2 > 0


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"sys/fs/cgroup/memory.max": "5242880\n"}, 5 * MIB),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "6291456\n"}, 6 * MIB),
        ({"proc/self/cgroup": "0::/slice/job\n", "sys/fs/cgroup/slice/memory.max": "4194304"}, 4 * MIB),
        ({"proc/self/cgroup": "0::/slice:job:7\n", "sys/fs/cgroup/slice:job:7/memory.max": "2097152"}, 2 * MIB),
        ({"proc/self/cgroup": "3:cpu,memory:/job\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "3145728"},
        3 * MIB),
    ],
)  # fmt: skip
def test_control_groups_of_both_versions_and_those_above(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_memory(tmp_path) == limit


def test_no_limit_leaves_the_machines(tmp_path: Path) -> None:
    everything = machine_memory(tmp_path)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    for text in ("max\n", "9223372036854771712\n", "", "-1"):
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(text)
        machine_memory.cache_clear()
        assert machine_memory(tmp_path) == everything >= 2**24


def test_what_exceeds_the_budget_is_named_with_size_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTDFAST_MEMORY", "1M")
    require(MIB, "layer 3 (Pad)")
    with pytest.raises(
        dtd.DtdError, match=r"^layer 3 \(Pad\) needs 1.0 MB, but the budget is 1.0 MB.*DTDFAST_MEMORY=1G"
    ) as caught:
        require(MIB + 1, "layer 3 (Pad)")
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(dtd.MemoryBudgetError, match="TB"):
        require(10**400, "a size that no float holds")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2**31, "2.1 GB"), (2**43, "8.7 TB")]
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert readable(size) == text


# ------------------------------------------------------------------------------------------- what `explain` may keep


class Made:
    """An Explainer, as far as the cache is concerned."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_the_last_eight_are_kept() -> None:
    kept: Cache[Made] = Cache()
    made = [kept.get(number, lambda: Made(1)) for number in range(8)]
    assert kept.get(0, lambda: Made(1)) is made[0]
    kept.get(8, lambda: Made(1))
    assert list(kept._kept) == [2, 3, 4, 5, 6, 7, 0, 8]  # the one that was asked for longest ago went


@pytest.mark.parametrize(("memory", "limit"), [("64G", 2**30), ("8M", MIB)])
def test_no_more_than_a_gigabyte_is_kept_unless_one_alone_has_more(
    monkeypatch: pytest.MonkeyPatch, memory: str, limit: int
) -> None:
    monkeypatch.setenv("DTDFAST_MEMORY", memory)
    kept: Cache[Made] = Cache()
    for number, nbytes in enumerate((limit // 2, limit - limit // 2)):
        kept.get(number, lambda nbytes=nbytes: Made(nbytes))
    assert list(kept._kept) == [0, 1]
    kept.get(2, lambda: Made(1))
    assert list(kept._kept) == [1, 2]
    kept.get(3, lambda: Made(2 * limit))
    assert list(kept._kept) == [3]


def test_idle_working_memory_goes_where_it_was_used_longest_ago() -> None:
    pool, (first, second, third) = ArenaPool(10 * MIB), (Shelf(), Shelf(), Shelf())
    taken = [pool.take(shelf, 4 * MIB) for shelf in (first, second)]
    for shelf, arena in zip((first, second), taken, strict=True):
        pool.give(shelf, arena)
    assert pool.nbytes == 8 * MIB
    arena = pool.take(third, 4 * MIB)
    assert arena.memory is taken[0].memory  # in the place of new memory
    pool.give(third, arena)
    assert [len(shelf.idle) for shelf in (first, second, third)] == [0, 1, 1]
    large = pool.take(first, 11 * MIB)
    assert pool.nbytes == 0
    pool.give(first, large)
    assert pool.nbytes == 11 * MIB  # the last one is kept whatever it has
    pool.give(second, taken[1])
    assert pool.nbytes == 4 * MIB
