"""`dtdfast.run`: a data set through a network into a Zarr group, resumable after every interruption."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import budget
from ..arrays.checks import host_array
from ..concepts.channels import Channels, ChannelScores
from ..errors import InputError, RunError, TargetError, starved
from ..explainer import Explainer
from ..extras import require
from ..files import named
from ..images import Preparation
from ..layers import Layer
from ..layout import channel_axis
from ..options import PLACE, alone, check_flags, split
from ..presets import clips
from ..progress import bar
from ..threads import MOST, default_threads
from .local import AHEAD, run_locally, streams
from .lock import locked
from .manifest import FORMAT, as_stored, described, differences, environment, model_digest
from .overview import most_often
from .sources import Source, open_source
from .store import Store
from .stored import Stored
from .task import Task, tasks
from .work import Work

CHUNK_BYTES = 1 << 24  # of samples or relevance per chunk, whichever is more; what a kill can cost
CHUNK_MOST = 4096  # samples
NUMBER_BYTES = 40  # of a chunk's number in a list


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        The Zarr group.
    samples : int
        The number of samples of the whole data set.
    explained : int
        The number that this call explained; the others were finished before.
    seconds : float
        The time that this call took for them.
    """

    path: Path
    samples: int
    explained: int
    seconds: float

    def errors(self) -> Iterator[tuple[int, str, str]]:
        """Of every bad sample: its number, its file's name ("" in an array) and what is wrong with it."""
        return Stored(self.path).errors()

    def often(self, most: int) -> list[tuple[Any, int]]:
        """The outputs that were explained most often, and how often."""
        stored = Stored(self.path)
        return most_often(np.concatenate([stored.rows("target", of.start, of.stop) for of in stored.finished]), most)


def run(
    layers: Sequence[Layer],
    data: Any,
    out: str | os.PathLike[str],
    target: Any = None,
    *,
    preparation: Preparation | None = None,
    resume: bool = False,
    strict: bool = False,
    dtype: str = "float32",
    sum_channels: bool = False,
    ledger: bool = False,
    channels: Channels | None = None,
    chunk: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
    **options: Any,
) -> Run:
    """Explain every sample of a data set, and store relevance, outputs and totals in a Zarr group.

    Only a few chunks are in memory at any time. A run that was killed, at whatever instant, continues with
    ``resume=True`` and gives the same bits as one that was never interrupted.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    data : array_like, DataFrame, path or sequence of paths
        The samples. A path names a folder or glob of images, which come in the order of their names, a .npy file, a
        Zarr array, or an HDF5 file (``file.h5:dataset``). A sequence of images keeps its order. Floats and word numbers
        are taken as they are. Images, and arrays of uint8 of shape (n, height, width[, 3]), are prepared by
        `preparation`.
    out : str or path-like
        The path of the Zarr group, which this call creates.
    target : int, tuple, str or array_like of int, optional
        What is explained, as in `Explainer.explain`: by default the largest output of each sample, else one output for
        all samples, or one for each.
    preparation : Preparation, optional
        How images are cropped, resized and normalised.
    resume : bool, default False
        Whether to continue what is there, or to begin if nothing is.
    strict : bool, default False
        Whether to stop at a sample that cannot be explained. Otherwise its relevance is NaN, and its error is stored.
    dtype : {"float32", "float16"}, default "float32"
        The type of the stored relevance. float16 has 11 bits, and steps of 6e-8 below 6e-5.
    sum_channels : bool, default False
        Whether to store the sum over the channels, taken in float64. The channels are axis 1, or the last axis where
        the network takes them there, as Keras's do.
    ledger : bool, default False
        Whether to store every cause of absorption, as `Explainer.ledger` finds them. This takes up to about
        half of the explanation's time more.
    channels : Channels, optional
        The entry of which a number per channel is stored, so that `dtdfast.concepts.stored_samples` can say in which
        samples each channel matters most. This takes another pass, down to that entry.
    chunk : int, optional
        The number of samples that are stored and finished together; by default 16 MiB of them.
    workers : int, optional
        The number of processes of a Dask cluster on this machine; by default this process alone.
    scheduler : str, optional
        The address of a running Dask scheduler to use instead.
    progress : bool, default False
        Whether to show samples per second and the time left; needs the extra `progress`.
    **options
        Options of the `Explainer`.

    Returns
    -------
    Run
        Where the results are, and how many samples were explained.

    Raises
    ------
    RunError
        The output exists, is of another run, or is being written by another process; or the run was stopped, by a full
        disk for example, and can be continued.
    InputError
        There is nothing to read, or a sample is bad with `strict`.
    TargetError
        `target` does not fit the samples.
    DtdError
        What `Explainer` raises, before any work.

    Examples
    --------
    >>> from dtdfast.images import Preparation
    >>> fed = Preparation(size=(224, 224))
    >>> dtdfast.run(layers, "photographs", "maps.zarr", preparation=fed, domain=fed.domain)
    >>> zarr.open_group("maps.zarr")["relevance"][0]  # on the command line, `dtdfast browse` shows it
    """
    path = Path(named(out)).absolute()
    with suppress(OSError):  # which creating it meets again
        if path.is_symlink():
            path = Path(os.path.realpath(path))  # so that there is one lock for an output, whatever it is called
    options, others = split(options)
    if workers is not None and scheduler is not None:
        raise RunError(
            "workers is for a cluster on this machine, scheduler for one that runs elsewhere: give one of them"
        )
    for key, value in (("workers", workers), ("chunk", chunk)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise RunError(f"{key} is {value!r}, expected an integer of at least 1")
    check_flags(RunError, resume=resume, strict=strict, sum_channels=sum_channels, ledger=ledger)
    sum_channels, ledger = bool(sum_channels), bool(ledger)  # as the manifest holds them
    if scheduler is not None or workers is not None:
        require("distributed", "dask")
    if scheduler is not None:
        from .cluster import check_reachable

        check_reachable(scheduler)
    source = open_source(data)
    target = _checked(target, len(source))
    here = workers is None and scheduler is None
    shared, side_by_side = _shared(options, workers, here)
    explainer = Explainer(layers, **shared)
    alone(layers, "a run")
    if others:
        raise RunError(f"{next(iter(others))}= is no option of a run")
    scores = None if channels is None else _scores(layers, channels, shared)
    rank = 1 + len(source.sample(preparation)[0])
    last = channel_axis(layers, rank) < 0 if preparation is None else preparation.layout == "nhwc"
    last = last and options.get("stop") is None
    work = _work(explainer, source, preparation, target, dtype, sum_channels, last, ledger, strict, scores)
    begun = environment(explainer.backend, pictures=source.names is not None)
    manifest = as_stored(
        {
            "format": FORMAT,
            "samples": len(source),
            "chunk": _chunk(source, preparation, work, chunk),
            "model": model_digest(layers),
            "data": source.identity(),
            "preparation": described(preparation, layers),
            "target": described(target, layers),
            "options": {key: described(v, layers) for key, v in explainer.options.items() if key not in PLACE},
            "stored": {
                "dtype": dtype,
                "sum over channels": bool(sum_channels),
                "ledger": bool(ledger),
                **({"layout": "nhwc"} if last and preparation is None else {}),
                **_kept(channels),
            },
            **begun,
        }
    )
    with _resumable(path), locked(path.with_name(path.name + ".lock"), path):
        store = _opened(path, resume, manifest, chunk is None, work, source)
        length = store.manifest()["chunk"]
        if strict and (bad := next(Stored(path).errors(), None)) is not None:
            raise InputError(f"sample {bad[0]} is bad, as a run without strict has stored in {path}: {bad[2]}")
        finished = store.whole(work.columns())
        left = [number for number in range(-(-len(source) // length)) if number not in finished]
        n_left = sum(min(length, len(source) - number * length) for number in left)
        clock = time.perf_counter()
        with _bar(progress, len(source), n_left, "sample" if source.names is None else "image") as done:
            todo = tasks(source, preparation, target, length, left)
            if not left:
                pass
            elif here:
                run_locally(work, store, todo, done, side_by_side if explainer.backend == "cpu" else 1)
            else:
                from .cluster import run_on_cluster

                run_on_cluster(work, store, todo, done, begun, workers, scheduler)
                store.sweep()  # what workers that were lost left half-written
        return Run(path, len(source), n_left, time.perf_counter() - clock)


# ---------------------------------------------------------------------------------------------------- before any work


def _checked(target: Any, n: int) -> Any:
    """None, an int, a tuple or "last" for all, or (n,) ints."""
    if isinstance(target, tuple) and len(target) == 1:
        (target,) = target
    if target is None or isinstance(target, (tuple, str, int, np.integer)):
        return target
    array = host_array(target, "target", TargetError)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise TargetError(
            f'target is {array.dtype} {array.shape}; a run of {n} samples takes None, an int, a tuple, "last" or '
            f"({n},) ints"
        )
    return array.astype(np.int64)


def _shared(options: dict[str, Any], workers: int | None, here: bool) -> tuple[dict[str, Any], int]:
    """The Explainer's options, and passes side by side: this machine's cores shared among these, or the workers on
    it.
    """
    if options.get("kind") is not None:
        raise RunError("kind is not for a run, which explains")
    wanted = options.get("n_threads")
    if here and (wanted is None or (isinstance(wanted, int) and wanted > 1)):
        threads = wanted or default_threads()
        if threads > MOST:
            raise RunError(f"n_threads is {threads}, expected at most {MOST}")
        return {**options, "n_threads": threads // streams(threads)}, streams(threads)
    if workers is None or wanted is not None:
        return options, 1
    return {**options, "n_threads": max(1, default_threads() // workers)}, 1


def _work(
    explainer: Explainer,
    source: Source,
    preparation: Preparation | None,
    target: Any,
    dtype: str,
    sum_channels: bool,
    last: bool,
    ledger: bool,
    strict: bool,
    scores: ChannelScores | None,
) -> Work:
    """What is done with every chunk, tried on a sample of zeros, so that wrong options show before anything is
    written.
    """
    if not isinstance(dtype, str) or dtype not in ("float32", "float16"):
        raise RunError(f"dtype is {dtype!r:.60}, expected 'float32' or 'float16'")
    shape, kind = source.sample(preparation)
    first = target[:1] if isinstance(target, np.ndarray) else target
    zeros = np.zeros((1, *shape), kind)
    relevance, outputs = explainer.explain(zeros, first, return_outputs=True)
    n_channels = 0 if scores is None else scores(zeros, first, {}).shape[1]
    axis = None
    if sum_channels:
        if relevance.ndim < 3:
            raise RunError(
                f"sum_channels sums over the channels, but relevance is (n, {relevance.shape[1]}): there are none"
            )
        stop = explainer.options["stop"]
        axis = relevance.ndim - 1 if last else 1
        if stop is not None:
            axis = channel_axis(explainer._layers, relevance.ndim, stop)
    clip = clips(explainer.options["rules"])
    return Work(
        explainer, relevance.shape[1:], outputs.shape[1:], axis, dtype, relevance.dtype, ledger, clip, strict, scores,
        n_channels,
    )  # fmt: skip


def _scores(layers: Sequence[Layer], channels: Any, options: dict[str, Any]) -> ChannelScores:
    if not isinstance(channels, Channels):
        raise RunError(f"channels is {channels!r:.60}, expected dtdfast.concepts.Channels(position)")
    return ChannelScores.of(layers, channels, options)


def _kept(channels: Channels | None) -> dict[str, Any]:
    return {} if channels is None else {"channels": asdict(channels)}


def _chunk(source: Source, preparation: Preparation | None, work: Work, given: int | None) -> int:
    """Samples per chunk: as the caller says, or 16 MiB of them; all of them at most."""
    shape, kind = source.sample(preparation)
    relevance, outputs = (work.computed.itemsize * math.prod(s) for s in (work.relevance, work.outputs))
    nbytes = max(math.prod(shape) * kind.itemsize, 4 * math.prod(work.relevance), 4 * math.prod(work.outputs))
    chunk = min(len(source), max(1, min(CHUNK_MOST, CHUNK_BYTES // nbytes)) if given is None else int(given))
    budget.require(
        AHEAD * chunk * (math.prod(shape) * kind.itemsize + relevance + outputs), f"a run in chunks of {chunk} samples"
    )
    count = -(-len(source) // chunk)
    budget.require(NUMBER_BYTES * count, f"a run of {count} chunks")
    return chunk


# --------------------------------------------------------------------------------------------------------- the output


def _opened(path: Path, resume: bool, manifest: dict[str, Any], any_chunk: bool, work: Work, source: Source) -> Store:
    """The output, new or as it was left."""
    if not path.exists():
        return Store.create(path, manifest, work.columns(), source.names)
    if not resume:
        raise RunError(f"{path} exists; continue it with resume=True (--resume), or choose another output")
    store = Store(path)
    begun = store.manifest()
    if any_chunk and "chunk" in begun:
        manifest = {**manifest, "chunk": begun["chunk"]}
    if differ := differences(begun, manifest):
        raise RunError(f"{path} was begun otherwise and cannot be continued so: {'; '.join(differ)}")
    store.check(begun, work.columns())
    store.sweep()
    return store


@contextmanager
def _resumable(path: Path) -> Iterator[None]:
    """A full disk, a read-only one, too little memory: what happened, and that nothing finished is lost."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not starved(error):
            raise
        raise RunError(f"{error}; {_state(path, _in_chunks)}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_state(path, _in_samples)) from None


def _state(path: Path, describe: Callable[[Path, int, int, set[int]], str]) -> str:
    """What is finished, and how to go on."""
    if not os.path.lexists(path):
        return f"nothing of {path} was written"
    try:
        store = Store(path)
        begun, finished = store.manifest(), store.finished()
    except (OSError, MemoryError, RuntimeError):
        return f"what is finished of {path} cannot be read now; continue with resume=True (--resume)"
    return describe(path, begun["samples"], begun["chunk"], finished)


def _in_chunks(path: Path, n: int, chunk: int, finished: set[int]) -> str:
    return f"{len(finished)} of {-(-n // chunk)} chunks of {path} are finished; continue with resume=True (--resume)"


def _in_samples(path: Path, n: int, chunk: int, finished: set[int]) -> str:
    done = sum(min(chunk, n - number * chunk) for number in finished)
    return f"{done} of {n} done, continue with --resume ({path})"


@contextmanager
def _bar(progress: bool, n: int, n_left: int, unit: str) -> Iterator[Callable[[Task], None]]:
    if not progress:
        yield lambda task: None
        return
    with bar(total=n, initial=n - n_left, unit=unit) as line:
        yield lambda task: line.update(len(task))
