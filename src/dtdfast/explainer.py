"""The public door: explain, predict and the Explainer that keeps what can be kept between calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import layers as L
from .arrays.checks import Check, apart, check_input, check_out, finite, is_dask
from .arrays.device import on_device, to_host
from .arrays.foreign import NUMPY, Home, take, take_out
from .backends import choose
from .cache import Cache, key_of
from .errors import InputError, NumericsError, RuleError, TargetError, at, translated
from .executors import Executors
from .ledger.account import Account
from .ledger.ledger import NARROW, Ledger, row_of, total
from .options import Options
from .plan.domain import Domain
from .plan.program import EXPLAIN, GRADIENT, PREDICT, last_entry
from .plan.wiring import sources
from .presets import RuleBook, Rules
from .rules import convention_of
from .show import shown
from .targets import Targets
from .underflow import REMEDY, empty, refill, sound

if TYPE_CHECKING:
    from .session import Executor

Array = NDArray[Any]


class Explainer:
    """A network prepared to be explained again and again; threads may share one, and it pickles.

    Parameters
    ----------
    layers : list of records, in topological order
    rules : str, Rule, {position: Rule} or callable (position, record) → Rule or None
        A preset's name, one rule for every entry that takes one, or rules of single entries over the preset "dtd".
    domain : "real", "nonnegative" or (low, high)
        What the network's input may be; with the preset "dtd" it chooses the rule of the layers that read it: w², z⁺ or
        zB.
    convention : {"dtd", "zennit", "captum", "innvestigate"}
        Whose habits (bias, stabilizer, pools, adds) the rules follow where they leave them open.
    backend : {"auto", "cpu", "cuda", "oracle"}
    precision : {"float32", "float64", "tf32", "bfloat16", "mixed"}
        Of the products' operands; sums are float32 (float64 under "float64", which is for the CPU and takes about 2.5
        times as long, its result too). "tf32" is for CUDA. "bfloat16" needs CUDA, or a CPU with AMX, or with
        AVX-512-BF16 (where it may be slower than "float32": measure); on CUDA it is also how values, gates and
        relevance are kept in memory. "mixed" predicts as "float32" does and explains in bfloat16. Rules whose sums
        cancel refuse the narrow ones. The CPU computes in float64 inside, and returns float32, where float32 would not
        do: up to the last layer where sums that the convention "captum" divides by may cancel (the printed plan says
        so). The oracle computes in float64 whatever this says.
    batch_size : int, optional
        Samples per pass through the network; None: as many as a memory budget allows.
    n_threads : int, optional
        None: OMP_NUM_THREADS, else the cores that this process may use.
    device : int, "cuda:1" or torch.device, optional
        The GPU that computes (backend "cuda"); None: number 0.
    start, stop : int, optional
        Positions of the entries at whose outputs relevance enters and leaves; None: the network's output and input.
    kind : {"explain", "gradient"}
        "gradient" hands down derivatives instead, for `dtdfast.baselines`.

    Raises
    ------
    DtdError
        Malformed layers, rules, options: see `dtdfast.errors`.
    """

    def __init__(
        self,
        layers: Sequence[L.Layer],
        *,
        rules: Rules = "dtd",
        domain: Any = "real",
        convention: str = "dtd",
        backend: str = "auto",
        precision: str = "float32",
        batch_size: int | None = None,
        n_threads: int | None = None,
        device: Any = None,
        start: int | None = None,
        stop: int | None = None,
        kind: str = EXPLAIN,
    ) -> None:
        given = Options(rules, domain, convention, backend, precision, batch_size, n_threads, device, start, stop, kind)
        reads = sources(layers)
        self._given, self._layers = given, list(layers)
        self._book = RuleBook(rules, convention_of(convention))
        self._domain = Domain.parse(domain)
        self._backend = choose(backend, precision, device)
        self._dtype: type = np.float64 if self._backend == "oracle" or precision == "float64" else np.float32
        # a Preparation needs all digits of x: it may subtract nearly all of it
        self._taken: type = np.float64 if any(isinstance(r, L.Preparation) for r in self._layers) else self._dtype
        # so that float64 on this machine can tell more
        self._narrow = self._backend == "cpu" and self._dtype == np.float32
        options = given.checked(len(self._layers))
        self._kind = kind
        self._words = _find_words(self._layers, reads, last_entry(self._layers, start, kind))
        self._check = Check(self._words, self._domain)
        self._executor = Executors(self._layers, options, self._backend, self._book, self._domain, self._check)
        self._nbytes = sum(
            a.nbytes for record in self._layers for a in vars(record).values() if isinstance(a, np.ndarray)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._layers, self.options)

    @property
    def backend(self) -> str:
        """The executor that was chosen: "cpu", "cuda" or "oracle"."""
        return self._backend

    @property
    def nbytes(self) -> int:
        """Bytes of its records, packed weights and plans; arrays that records share count once for each."""
        return self._nbytes + self._executor.nbytes

    @property
    def options(self) -> dict[str, Any]:
        """Every option that it was made with, defaults included."""
        return dict(vars(self._given))

    # ----------------------------------------------------------------------------------------------------------------
    # calls

    @translated
    def explain(
        self, x: Any, target: Any = None, *, return_outputs: bool = False, out: Any = None, progress: bool = False
    ) -> Any:
        """Relevance of every element of x for the outputs that `target` selects.

        Parameters
        ----------
        x : (n, c, *space) or (n, features), float; (n, ...) integers for an Embedding
            A Dask array gives lazy Dask arrays, chunked along the samples as it is. PyTorch and CuPy arrays on a GPU
            are read there by backend "cuda".
        target : None, int, tuple, (n,) ints, (n, t) or (1, t) ints, (n, *out) or (n, t, *out) floats
            None explains the largest output of each sample; floats are the start relevance themselves.
        return_outputs : also return the outputs that were explained (n, *out)
        out : array of x's kind and place to write the result into
        progress : show a progress bar over samples (needs dtdfast[progress])

        Returns
        -------
        relevance : array of x's shape, or (n, t, *x.shape[1:]) for several targets; of the entry's output with `stop`
        outputs : only with return_outputs

        Both are of x's kind: NumPy, or PyTorch or CuPy on x's device.
        """
        if is_dask(x):
            if out is not None or progress:
                raise InputError(
                    "x is a Dask array, explained when its result is computed: out and progress do not apply"
                )
            return _lazy().lazy_explain(self, x, target, return_outputs)
        x, executor, home = self._prepare(x, self._kind)
        program = executor.program
        targets = Targets.parse(take(target)[0], len(x), program.network.output.shape)
        leaves = program.leaves.shape
        shape = (len(x), targets.count, *leaves) if targets.several else (len(x), *leaves)
        result = check_out(out if on_device(x) else take_out(out), shape, self._dtype, x)
        if out is not None:
            x, targets = apart(x, result), targets.apart(result)
        # a strided `out` cannot be seen as (n, t, ...) without a copy, so index the target axis instead
        view = result if targets.several else result[:, None]
        outputs = check_out(None, (len(x), *program.network.output.shape), self._dtype, x) if return_outputs else None
        clip = self._book.preset.clip_start and not program.gradient
        for block in _blocks(len(x), executor.batch_size(len(x), targets.count), progress):
            with executor.session(block.stop - block.start, targets.count) as session:
                entry = targets.entry(block, unit=program.gradient, clip=clip)
                session.explain(x[block], entry, view[block], None if outputs is None else outputs[block])
                again = [] if program.checked is None else [block.start + i for i in session.doubtful]
            for i in again:
                self._explain_exactly(x, i, targets, view[i : i + 1], None if outputs is None else outputs[i : i + 1])
        usual = self._check_finite("relevance", result)
        if self._narrow and not (usual and len(view) == targets.count == 1):
            for k in range(targets.count):
                if lost := empty(view[:, k]):
                    refill("relevance", view[:, k], lost, lambda i, k=k: self._exact_map(x, i, targets)[k], REMEDY)  # type: ignore[misc]
        relevance = home.give(result) if out is None else out
        return relevance if outputs is None else (relevance, home.give(outputs))

    @translated
    def predict(self, x: Any) -> Any:
        """The network's outputs (n, *out), a final Softmax included; of x's kind, and lazy for a Dask array."""
        if is_dask(x):
            return _lazy().lazy_predict(self, x)
        x, executor, home = self._prepare(x, PREDICT)
        result = check_out(None, (len(x), *executor.program.network.output.shape), self._dtype, x)
        for block in _blocks(len(x), executor.batch_size(len(x), 1), False):
            with executor.session(block.stop - block.start, 1) as session:
                session.predict(x[block], result[block])
        usual = self._check_finite("output", result)
        if self._narrow and not (usual and len(result) == 1) and (lost := empty(result)):
            refill("output", result, lost, lambda i: self._exact_outputs(x, i), REMEDY)
        return home.give(result)

    @translated
    def ledger(self, x: Any, target: Any = None) -> Ledger:
        """Where the relevance of every layer went: one row per unit of the plan; printable.

        Raises
        ------
        TargetError
            For several targets: the ledger follows one per sample.
        """
        x, executor, _ = self._prepare(take(x)[0], self._kind)
        targets = Targets.parse(take(target)[0], len(x), executor.program.network.output.shape)
        if targets.several:
            raise TargetError("the ledger follows one target per sample; call it once per target")
        if executor.program.gradient:
            raise RuleError("a gradient is not conserved, so it has no ledger")
        rows, starts, ends = [], [], []
        real = np.float64 if self._backend == "oracle" else np.dtype(executor.program.real)
        u = max(float(np.finfo(real).epsneg), NARROW.get(str(self._given.precision), 0.0))
        for block in _blocks(len(x), executor.batch_size(len(x), 1, ledger=True), False):
            with executor.session(block.stop - block.start, 1, ledger=True) as session:
                start = targets.entry(block, clip=self._book.preset.clip_start).relevance(session.forward(x[block]))
                accounts: list[Account] = []
                end: Array = np.empty((len(start), 1, *executor.program.leaves.shape), real)
                session.relevance(start, end, accounts)
                rows.append([row_of(a, self._layers, u) for a in accounts])
                starts.append(total(start))
                ends.append(total(end))
        return Ledger.join(rows, np.concatenate(starts), np.concatenate(ends))

    @translated
    def plan_for(self, input_shape: Sequence[int], n_targets: int = 1) -> Any:
        """The plan for inputs of this shape (batch first): what is computed, in which steps, with which memory;
        printable.
        """
        shape = tuple(int(s) for s in input_shape)
        executor = self._executor(shape[1:], self._kind)
        return executor.plan(min(shape[0], executor.batch_size(shape[0], n_targets)), n_targets)

    @translated
    def profile(self, x: Any, target: Any = None) -> Any:
        """Time, multiply-adds and bytes of every step of one explanation; printable."""
        x, executor, _ = self._prepare(take(x)[0], self._kind)
        targets = Targets.parse(take(target)[0], len(x), executor.program.network.output.shape)
        block = slice(0, executor.batch_size(len(x), targets.count))
        return executor.profile(x[block], targets.entry(block).relevance)

    # --------------------------------------------------------------------------------------------------------------
    # checking

    def _explain_exactly(self, x: Any, i: int, targets: Targets, view: Array, outputs: Array | None = None) -> None:
        """Sample i's relevance (1, t, *leaves) in float64 into `view`."""
        executor = self._executor(tuple(x.shape[1:]), self._kind, exact=True)
        program, one = executor.program, slice(i, i + 1)
        clip = self._book.preset.clip_start and not program.gradient
        with executor.session(1, targets.count) as session:
            session.explain(to_host(x[one]), targets.entry(one, unit=program.gradient, clip=clip), view, outputs)

    def _exact_map(self, x: Any, i: int, targets: Targets) -> Array:
        """The same, (t, *leaves)."""
        leaves = self._executor(tuple(x.shape[1:]), self._kind, exact=True).program.leaves.shape
        view: Array = np.zeros((1, targets.count, *leaves))
        if targets.start is None or targets.start[i].any():
            self._explain_exactly(x, i, targets, view)
        return np.asarray(view[0])

    def _exact_outputs(self, x: Any, i: int) -> Array:
        executor = self._executor(tuple(x.shape[1:]), PREDICT, exact=True)
        outputs = np.zeros((1, *executor.program.network.output.shape))
        with executor.session(1, 1) as session:
            session.predict(to_host(x[i : i + 1]), outputs)
        return np.asarray(outputs[0])

    def _check_finite(self, what: str, values: Array) -> bool:
        """What the CUDA executor finds out on its device; whether something is above 0 besides, which need not be
        told.
        """
        if self._backend == "cuda" or sound(values):
            return True
        if not finite(values):
            precision = np.dtype(self._dtype)
            raise NumericsError(
                f"the {what} overflowed {precision}; rescale the network, or see with backend='oracle' where"
            )
        return False

    def _prepare(self, x: Any, kind: str) -> tuple[Any, Executor, Home]:
        """X as the executor takes it, checked; the executor; where results go (on a GPU they are there already)."""
        host, home = (x, NUMPY) if self._backend == "cuda" and on_device(x) else take(x)
        if self._backend == "cuda":
            array = self._check.admit(host)
            return array, self._executor(tuple(array.shape[1:]), kind), home
        array = check_input(host, self._words, self._taken)
        executor = self._executor(array.shape[1:], kind)
        if kind == EXPLAIN and self._words is None:
            self._domain.check(np.asarray(host))  # in the caller's own precision
        return array, executor, home

    def __repr__(self) -> str:
        kinds = ", ".join(at(None, r) for r in self._layers[:3]) + (", ..." if len(self._layers) > 3 else "")
        return f"Explainer([{kinds}], rules={shown(self._given.rules)}, backend={self._backend!r})"


def _rebuild(layers: list[L.Layer], arguments: dict[str, Any]) -> Explainer:
    return Explainer(layers, **arguments)


def _lazy() -> Any:
    """What explains Dask arrays; imported when there is one."""
    from .arrays import dask

    return dask


def _blocks(n: int, size: int, progress: bool) -> Iterable[slice]:
    """A batch of n samples in blocks of so many, with a progress bar where one is wanted."""
    blocks = [slice(i, min(i + size, n)) for i in range(0, n, size)]
    if not progress:
        return blocks
    from .progress import shown

    return shown(blocks, n)


def _find_words(layers: list[L.Layer], reads: Any, last: int) -> tuple[int, int] | None:
    """Position and number of words of an Embedding that reads the input, if there is one."""
    for position, record in enumerate(layers[: last + 1]):
        if isinstance(record, L.Embedding) and L.INPUT in reads[position]:
            return position, np.shape(record.weight)[0]
    return None


# -------------------------------------------------------------------------------------------------------------------
# module functions

CACHE: Cache[Explainer] = Cache()


def _cached(layers: Sequence[L.Layer], options: Options) -> Explainer:
    """An Explainer for these very records and options; the cache holds them, so an id cannot be reused meanwhile."""

    def make() -> Explainer:
        return Explainer(layers, **vars(options))

    try:
        key = (tuple(map(id, layers)), key_of(tuple(vars(options).values())))
        hash(key)
    except (TypeError, ValueError, RuntimeError):  # not a list, or something that cannot be compared among the options
        return make()
    return CACHE.get(key, make)


def explain(
    layers: Sequence[L.Layer],
    x: Any,
    target: Any = None,
    *,
    rules: Rules = "dtd",
    domain: Any = "real",
    convention: str = "dtd",
    backend: str = "auto",
    precision: str = "float32",
    batch_size: int | None = None,
    n_threads: int | None = None,
    device: Any = None,
    start: int | None = None,
    stop: int | None = None,
    return_outputs: bool = False,
    out: Any = None,
    progress: bool = False,
) -> Any:
    """Explain a network's outputs by Deep Taylor Decomposition, or another rule of the LRP family.

    `Explainer(layers, **options).explain(x, target, ...)`, with a small cache of Explainers; see `Explainer` for the
    options and `Explainer.explain` for x, target and the result.
    """
    options = Options(rules, domain, convention, backend, precision, batch_size, n_threads, device, start, stop)
    return _cached(layers, options).explain(x, target, return_outputs=return_outputs, out=out, progress=progress)


def predict(
    layers: Sequence[L.Layer],
    x: Any,
    *,
    backend: str = "auto",
    batch_size: int | None = None,
    n_threads: int | None = None,
) -> Any:
    """The network's outputs (n, *out) as the list is written, a final Softmax included."""
    return _cached(layers, Options(backend=backend, batch_size=batch_size, n_threads=n_threads)).predict(x)


__all__ = ["GRADIENT", "Explainer", "explain", "predict"]
