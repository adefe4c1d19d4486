"""Runs that are interrupted, as processes: SIGKILL, full and read-only disks, two at once; and what they need of
memory.

DTDFAST_LONG=1: 20,000 digits and 500 photographs, killed 20 times each.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import zarr

import dtdfast as dtd
from dtdfast import cli
from dtdfast.data import digits
from photographs import photographs
from run_support import COMMAND, LONG, contents, finished, killed_again_and_again, run, start, wait_for

RNG = np.random.default_rng(0)
SQUEEZENET = Path(__file__).parents[2] / "shared/data/squeezenet1_1.onnx"
N_DIGITS, N_PHOTOGRAPHS, KILLS = (20_000, 500, 20) if LONG else (2_000, 40, 2)
DIGITS_IN_A_CHUNK = 25 if LONG else 8  # enough chunks that a run is still under way when it is killed


@pytest.fixture(scope="module")
def digits_command(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The shipped network on many digit-sized images: the shipped ones, each with other noise."""
    folder = tmp_path_factory.mktemp("digits")
    layers, images, _ = digits()
    dtd.save(layers, folder / "digits.safetensors")
    noisy = images[np.arange(N_DIGITS) % len(images)] + RNG.normal(0, 0.05, (N_DIGITS, 1, 8, 8))
    np.save(folder / "digits.npy", noisy.clip(0, 1).astype(np.float32))
    return (
        "explain",
        folder / "digits.safetensors",
        folder / "digits.npy",
        "--domain",
        "0,1",
        "--chunk",
        DIGITS_IN_A_CHUNK,
    )


@pytest.fixture(scope="module")
def photographs_command(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Photographs through SqueezeNet in the long form, else through a small network."""
    folder = tmp_path_factory.mktemp("photographs")
    photographs(folder / "photos", N_PHOTOGRAPHS)
    if LONG and SQUEEZENET.exists():
        fed = ("--channels", "bgr", "--scale", 255, "--mean", "104,117,123")
        return ("explain", SQUEEZENET, folder / "photos", *fed, "--threads", 1, "--chunk", 5)
    weight = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)
    dtd.save(
        [dtd.Conv(weight, -abs(weight.sum(axis=(1, 2, 3)))), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()],
        folder / "net.safetensors",
    )
    return ("explain", folder / "net.safetensors", folder / "photos", "--size", 64, "--chunk", 2)


CHUNKS = {"digits_command": N_DIGITS // DIGITS_IN_A_CHUNK, "photographs_command": N_PHOTOGRAPHS // (5 if LONG else 2)}


@pytest.mark.parametrize(("which", "n_chunks"), CHUNKS.items())
def test_killed_at_random_moments_and_resumed(
    which: str, n_chunks: int, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    command = request.getfixturevalue(which)
    printed, progress = run(*command, "-o", tmp_path / "whole.zarr")
    assert "0 bad" in printed
    assert "100%" in progress
    torn = killed_again_and_again(command, tmp_path / "killed.zarr", n_chunks, KILLS, seed=n_chunks)
    print(f"{which}: {KILLS} kills, {torn} chunks torn")
    whole, killed = contents(tmp_path / "whole.zarr"), contents(tmp_path / "killed.zarr")
    assert whole == killed
    assert finished(tmp_path / "whole.zarr") == n_chunks
    group = zarr.open_group(tmp_path / "whole.zarr", mode="r")
    assert np.isfinite(group["relevance"][:]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.zarr", "whole.zarr"]
    assert cli.main([*map(str, command), "-o", str(tmp_path / "killed.zarr"), "--resume"]) == 0
    assert f"{group['target'].shape[0]} of them before" in capsys.readouterr().out


def test_ctrl_c_ends_in_one_line_and_a_state_that_can_be_continued(
    digits_command: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*digits_command[:-1], 4, "-o", tmp_path / "out.zarr")
    process = start(*command)
    wait_for(lambda: finished(tmp_path / "out.zarr") > 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    told = re.fullmatch(
        rf"dtdfast: interrupted; (\d+) of {N_DIGITS} done, continue with --resume \(.*out\.zarr\)",
        errors.splitlines()[-1],
    )
    assert told is not None, errors
    assert "Traceback" not in errors
    assert 2 < finished(tmp_path / "out.zarr") < N_DIGITS // 4
    assert int(told[1]) == 4 * finished(tmp_path / "out.zarr")
    assert not list((tmp_path / "out.zarr").rglob("*.partial"))
    assert cli.main([*map(str, command), "--resume"]) == 0
    assert f"{told[1]} of them before" in capsys.readouterr().out


def test_two_at_once_are_refused(digits_command: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    process = start(*digits_command, "-o", out, "--chunk", 1)
    wait_for(lambda: finished(out) > 0, process)
    process.send_signal(signal.SIGSTOP)  # so that it does not end first
    _, errors = run(*digits_command, "-o", out, "--resume", "--chunk", 1, code=2)
    assert "another process is writing there" in errors
    process.kill()
    process.communicate(timeout=60)
    assert (tmp_path / "out.zarr.lock").exists()  # left behind, and held by nobody
    changed, _ = run(*digits_command[:3], "-o", out, "--resume", "--chunk", 1, code=2)
    assert changed == ""


# ---------------------------------------------------------------------------------------------------------------- disks


def test_a_disk_that_takes_no_more(digits_command: tuple[object, ...], tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails in the middle of a chunk."""
    out = tmp_path / "out.zarr"
    command = (*digits_command[:-1], 500)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    limit += "sys.dont_write_bytecode = True"  # which Python would cut off without a word
    _, errors = run(*command, "-o", out, code=2, before=limit)
    message = errors.splitlines()[-1]
    assert message.startswith("dtdfast: [Errno 27] File too large")
    assert f"0 of {N_DIGITS // 500} chunks of {out} are finished; continue with resume=True (--resume)" in message
    for ending in ("-o", out, "--resume"), ("-o", tmp_path / "whole.zarr"):
        assert cli.main([*map(str, (*command, *ending))]) == 0
    assert contents(out) == contents(tmp_path / "whole.zarr")


# PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: root, too, obeys permissions
OBEY = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1)"


def obedient(*arguments: object) -> tuple[str, str]:
    """The command, which must fail, as somebody whom permissions bind."""
    execute = f"{OBEY}; os.execv(sys.executable, [sys.executable, '-c', {COMMAND!r}, *sys.argv[1:]])"
    return run(*arguments, code=2, before=execute)


def test_a_folder_that_may_not_be_written(digits_command: tuple[object, ...], tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    try:
        _, errors = obedient(*digits_command, "-o", folder / "out.zarr")
    finally:
        folder.chmod(0o755)
    assert "Permission denied" in errors.splitlines()[-1]
    assert f"nothing of {folder / 'out.zarr'} was written" in errors.splitlines()[-1]
    assert list(folder.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- memory

PEAK = """
import atexit
def report():
    with open('/proc/self/status') as status:
        print(next(line.split()[1] for line in status if line.startswith('VmHWM')))
atexit.register(report)
"""


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    """A network that costs next to nothing, on samples of 64 KiB: 200 of them, and five times as many, 50 MiB more."""
    dtd.save(
        [dtd.Flatten(), dtd.Linear(RNG.standard_normal((10, 1 << 14)).astype(np.float32))], tmp_path / "net.safetensors"
    )
    peaks = []
    for n in (200, 1000):
        np.save(tmp_path / "x.npy", RNG.random((n, 1, 128, 128), dtype=np.float32))
        printed, _ = run(
            "explain",
            tmp_path / "net.safetensors",
            tmp_path / "x.npy",
            "-o",
            tmp_path / f"{n}.zarr",
            "--chunk",
            20,
            before=PEAK,
        )
        peaks.append(int(printed.splitlines()[-1]) * 1024)
    print(
        f"peak {peaks[0] / 2**20:.0f} MiB, "
        f"with 50 MiB more of samples and as much of relevance {peaks[1] / 2**20:.0f} MiB"
    )
    assert peaks[1] - peaks[0] < 20 * 2**20  # a fifth of what came in and went out more: the allocator's noise
