"""The Explainer: a network with options, and what can be kept between calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from . import layers as L
from .arrays.checks import apart, as_array, check_out, check_range, is_dask
from .arrays.device import on_device
from .arrays.foreign import take, take_out
from .backends import choose
from .errors import InputError, at, translated
from .exact import Exact
from .executors import Executors, shape_of
from .intake import Intake
from .layout import domain_of
from .ledger.ledger import Ledger
from .options import Options, at_least_one, check_flags
from .passes import Account, explain_blocks
from .plan.program import EXPLAIN, PREDICT, last_entry
from .plan.wiring import sources
from .presets import RuleBook, Rules, settled
from .progress import blocks
from .rules import convention_of
from .session import rows
from .show import shown
from .sizes import copied
from .underflow import REMEDY, refill


class Explainer:
    """A network that is prepared once and explained many times.

    It checks and packs the weights once, and keeps plans and working memory between calls. Threads may share one, and
    it can be pickled.

    Parameters
    ----------
    layers : sequence of Layer
        The network: a list of records in topological order.
    rules : str, Rule, dict or callable, default "dtd"
        The rule of every layer: the name of a preset (a key of `PRESETS`); one `Rule` for all layers that take one; a
        dict {position: Rule}; or a callable of (position, record) that returns a Rule or None. A layer that the dict or
        the callable leaves out takes the rule of the preset "dtd". Both are read once.
    domain : {"real", "nonnegative"} or (low, high), default "real"
        The values that the network's input can have. low and high are numbers, arrays of one value per channel, or
        arrays that broadcast to one sample, with low ≤ 0 ≤ high. Channels lie along axis 1, or last where the first
        layers take them so: networks from Keras, and a Linear on the features of tokens or words. Under the preset
        "dtd" the domain chooses the rule of the layers that read the input: w² for "real", z⁺ for "nonnegative", zB for
        (low, high).
    convention : {"dtd", "zennit", "captum", "innvestigate"}, default "dtd"
        The tool whose treatment of biases, stabilisers, pools and additions is followed where a rule leaves them open.
    attention : {"held", "taylor"}, optional
        What relevance makes of attention and of products of two computed operands; by default the preset's choice,
        which is "taylor" for "attnlrp" and "held" for all others.

        - "held": attention weights, the scales of norms and gates are constants of the sample, so that relevance goes
          through values alone, by the rules of linear layers (CP-LRP).
        - "taylor": a softmax has its own Taylor rule, and each operand of a product takes half (AttnLRP). Rules that
          share by the signs of terms (z⁺, αβ) refuse it, and so do flat, w² and zB on what it made.
    backend : {"auto", "cpu", "cuda", "oracle"}, default "auto"
        The executor. "auto" is CUDA if a GPU is usable, else the CPU; "oracle" is the reference in NumPy. `backends`
        lists which of them are usable here.
    precision : {"float32", "float64", "single", "tf32", "bfloat16", "mixed"}, default "float32"
        The number type of the operands of products.

        - "float32" and "float64": products, sums and the result have this type. "float64" is for the CPU; it takes a
          little more than twice the time.
        - "single", for the CPU: float32 also where "float32" would compute in float64, as captum's rules need.
        - "tf32", for CUDA: operands are rounded to tf32; sums and the result are float32.
        - "bfloat16", for CUDA and for CPUs with AMX or AVX-512-BF16: operands are rounded to bfloat16; sums and the
          result are float32. On CUDA, values, gates and relevance are also stored in bfloat16. CPUs without AMX
          multiply in bfloat16 where that is faster (AMD: the products on the way back; Intel: none), else in float32.
        - "mixed": predicts as "float32" does, and explains in bfloat16.

        Rules whose sums may cancel (LRP-0, ε, γ) refuse the last three. The oracle takes the first two, and computes in
        float64.
    batch_size : int, optional
        The number of samples per pass through the network; by default as many as the memory budget allows.
    n_threads : int, optional
        The number of threads on the CPU; by default OMP_NUM_THREADS as it is when dtdfast is imported, else the
        number of cores that this process may use.
    device : int, str or torch.device, optional
        The GPU of backend "cuda", such as 1 or "cuda:1"; by default number 0.
    start : int, optional
        The position of the entry at whose output relevance starts; by default the network's output, before a final
        Softmax.
    stop : int, optional
        The position of the entry for whose output relevance is returned; by default the network's input.
    kind : {"explain", "gradient"}, default "explain"
        What is propagated: relevance, or derivatives for `dtdfast.baselines`.

    Raises
    ------
    LayerError
        A record, its place in the network, or an option that is a number is malformed, or the network cannot be
        explained. `WiringError` is the one about a record's `inputs`.
    RuleError
        A rule, preset or convention is unknown, or is given to an entry that takes none.
    DomainError
        `domain` is malformed.
    BackendError
        The backend, precision or device is not usable here; the message says why.

    See Also
    --------
    explain : The same for a single call.

    Examples
    --------
    >>> relevance, ledger = dtdfast.Explainer(layers, rules="epsilon-plus").explain(x, 3, return_ledger=True)
    """

    def __init__(
        self,
        layers: Sequence[L.Layer],
        *,
        rules: Rules = "dtd",
        domain: Any = "real",
        convention: str = "dtd",
        attention: str | None = None,
        backend: str = "auto",
        precision: str = "float32",
        batch_size: int | None = None,
        n_threads: int | None = None,
        device: Any = None,
        start: int | None = None,
        stop: int | None = None,
        kind: str = EXPLAIN,
    ) -> None:
        given = Options(
            rules, domain, convention, attention, backend, precision, batch_size, n_threads, device, start, stop, kind
        )
        reads, rules, box = sources(layers), settled(rules, layers), domain_of(domain, layers)
        self._given, self._layers, self._kind = replace(given, rules=rules, domain=box.option), copied(layers), kind
        self._book = RuleBook(rules, convention_of(convention), attention)
        self._backend = choose(backend, precision, device)
        self._dtype: type = np.float64 if self._backend == "oracle" or precision == "float64" else np.float32
        options = self._given.checked(len(self._layers))
        last = last_entry(self._layers, start, kind)
        self._intake = Intake(self._layers, reads, last, box, self._backend, self._dtype)
        self._executor = Executors(self._layers, options, self._backend, self._book, self._intake)
        self._exact = Exact(self._executor, kind, self._book.preset.clip_start)
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
        """Bytes of the records, packed weights and plans; an array that several records share counts once for each."""
        return self._nbytes + self._executor.nbytes

    @property
    def options(self) -> dict[str, Any]:
        """All options that this Explainer was made with, defaults included."""
        return {key: dict(v) if isinstance(v, dict) else v for key, v in vars(self._given).items()}

    def _asked(self, x: Any, target: Any, given: dict[str, Any], *, whole: bool) -> Any:
        return self._intake.explained(x, target, given, self._kind, self._executor, whole=whole)

    # ---------------------------------------------------------------------------------------------------------- calls

    @translated
    def explain(
        self,
        x: Any,
        target: Any = None,
        *,
        return_outputs: bool = False,
        return_ledger: bool = False,
        out: Any = None,
        progress: bool = False,
        **given: Any,
    ) -> Any:
        """Explain the outputs that `target` selects: the relevance of every element of x.

        Parameters
        ----------
        x : array_like
            The inputs: floats of shape ``(n, c, *space)`` or (n, features), or integers of shape (n, ...) for an
            Embedding. Arrays of NumPy, PyTorch, CuPy and JAX or over DLPack are taken, and tables of pandas and polars;
            those of PyTorch and CuPy on a GPU are read there by backend "cuda". A Dask array is explained lazily.
        target : int, tuple, str, array_like or None, default None
            What is explained.

            - None: the largest output of each sample.
            - An int: this output of every sample, counted along axis 1.
            - A tuple (c, i, j): this output of every sample, for outputs with more than one axis.
            - A pair (token, c), for outputs (n, tokens, classes): output c of one token, counted from the end where it
              is negative. "last" is the last token that `attention_mask` leaves in, or simply the last one where the
              network has no Given of this name. None for c is the token's largest output, as is "last" alone.
            - Integers of shape (n,): one output per sample.
            - Integers of shape (n, t) or (1, t): several outputs per sample.
            - Floats of shape ``(n, *out)`` or ``(n, t, *out)``: the start relevance itself, one or several per sample.
            - A `Contrast`: one output set against others.
        return_outputs : bool, default False
            Whether to return the network's outputs too.
        return_ledger : bool, default False
            Whether to return the ledger too, as `Explainer.ledger` finds it; there is one target per sample then.
        out : array, optional
            An array to write the result into: of the result's shape and type, of x's kind and on x's device.
        progress : bool, default False
            Whether to show a progress bar over the samples; needs the extra `progress`.
        **given : array_like
            What the network's Givens are called: the values of all samples, for example ``attention_mask=mask``.

        Returns
        -------
        relevance : array
            The relevance of every element of x: of x's shape, or of shape ``(n, t, *x.shape[1:])`` for several targets.
            With `stop`, the shape of that entry's output stands for x's. Its type is float32; float64 with precision
            "float64" and backend "oracle". Its unit is that of the outputs. Its kind is x's: NumPy (also for DLPack),
            PyTorch, CuPy or JAX on x's device, lazy Dask, or a table with x's labels (one target, no `stop`).
        outputs : array
            Only with return_outputs: the outputs that were explained, of shape ``(n, *out)``.
        ledger : Ledger
            Only with return_ledger: where the relevance of every layer went.

        Raises
        ------
        ShapeError
            An array does not fit the layer that receives it.
        InputError, DomainError
            x has a wrong type, holds NaN or infinity, or lies outside `domain`; `out` does not fit.
        TargetError
            `target` selects no outputs of the network.
        MemoryBudgetError
            One sample needs more memory than the budget, which is DTDFAST_MEMORY or half of the memory here.
        NumericsError
            The result overflowed its number type.
        RuleError
            There is no ledger of gradients, which are not conserved.

        See Also
        --------
        dtdfast.explain : The same for a single call, with the formulas.
        """
        check_flags(return_outputs=return_outputs, return_ledger=return_ledger, progress=progress)
        if is_dask(x):
            if out is not None or progress or return_ledger:
                raise InputError("out, progress and return_ledger are not for a Dask array, which is explained lazily")
            from .arrays import dask

            self._intake.refuse_lazy(given)
            return dask.lazy_explain(self, x, target, return_outputs)
        wanted = return_outputs or return_ledger
        host, home = take(x) if return_ledger else (x, None)  # sums of a ledger are the host's
        x, beside, executor, there, targets = self._asked(host, target, given, whole=wanted)
        program, home = executor.program, home or there
        account = None
        if return_ledger:
            oracle, precision = self._backend == "oracle", str(self._given.precision)
            account = Account.of(self._layers, program, targets, "f8" if oracle else program.real, precision)
        shape = (len(x), *((targets.count,) if targets.several else ()), *program.leaves.shape)
        result = check_out(out if on_device(x) else take_out(out), shape, self._dtype, x)
        if out is not None:
            x, beside, targets = apart(x, result), apart(beside, result), targets.apart(result)
        # a strided `out` cannot be seen as (n, t, ...) without a copy, so index the target axis instead
        view = result if targets.several else result[:, None]
        outputs: Any = check_out(None, (len(x), *program.network.output.shape), self._dtype, x) if wanted else None
        clip = self._book.preset.clip_start and not program.gradient
        ledger = explain_blocks(
            executor, self._exact, x, beside, targets, view, outputs, clip=clip, progress=progress, account=account
        )
        if self._backend != "cuda":  # which finds it out itself
            check_range("relevance", result)
        relevance = out if out is not None else (home.of_inputs if self._given.stop is None else home.give)(result)
        more = [home.give(outputs)] if return_outputs else []
        more += [ledger] if return_ledger else []
        return (relevance, *more) if more else relevance

    @translated
    def predict(self, x: Any, **given: Any) -> Any:
        """Compute the network's outputs.

        Parameters
        ----------
        x : array_like
            The inputs, as `explain` takes them.
        **given : array_like
            As in `explain`.

        Returns
        -------
        array
            The outputs of the list as it is written, a final Softmax included: of shape ``(n, *out)``, of x's kind,
            lazy for a Dask array.

        Raises
        ------
        ShapeError, InputError
            x does not fit the network, has a wrong type, or holds NaN or infinity.
        NumericsError
            An output overflowed its number type.
        """
        if is_dask(x):
            from .arrays import dask

            self._intake.refuse_lazy(given)
            return dask.lazy_predict(self, x)
        x, beside, executor, home = self._intake(x, given, PREDICT, self._executor)
        result = check_out(None, (len(x), *executor.program.network.output.shape), self._dtype, x)
        for block in blocks(len(x), executor.batch_size(len(x), 1), False):
            with executor.session(block.stop - block.start, 1, rows(beside, block)) as session:
                session.predict(x[block], result[block])
                lost = session.empty
            if lost:
                empty = [(block.start + i, k) for i, k in lost]
                refill("output", result[:, None], empty, lambda i: self._exact.outputs(x, beside, i), REMEDY)
        if self._backend != "cuda":
            check_range("output", result)
        return home.give(result)

    @translated
    def ledger(self, x: Any, target: Any = None, **given: Any) -> Ledger:
        """Account for the relevance of every layer.

        Parameters
        ----------
        x : array_like
            The inputs, as `explain` takes them; a Dask array is computed.
        target : int, tuple, array_like or None, default None
            As in `explain`, with one target per sample.
        **given : array_like
            As in `explain`.

        Returns
        -------
        Ledger
            One row per layer of neurons and per other step of the plan; prints as a table.

        Raises
        ------
        TargetError
            There are several targets: the ledger follows one per sample.
        RuleError
            The Explainer is one of gradients, which are not conserved.
        """
        return cast(Ledger, self.explain(as_array(take(x)[0]), target, return_ledger=True, **given)[1])

    @translated
    def plan_for(self, input_shape: Sequence[int], n_targets: int = 1) -> Any:
        """The plan for inputs of one shape: what is computed, in which steps, with which memory.

        Parameters
        ----------
        input_shape : sequence of int
            The shape of x, the batch axis first.
        n_targets : int, default 1
            The number of targets per sample.

        Returns
        -------
        Plan
            Prints as a table.
        """
        shape, n_targets = shape_of(input_shape), at_least_one("n_targets", n_targets)
        executor = self._executor(shape[1:], self._kind)
        return executor.plan(min(shape[0], executor.batch_size(shape[0], n_targets)), n_targets)

    @translated
    def profile(self, x: Any, target: Any = None, **given: Any) -> Any:
        """Measure every step of one explanation.

        Parameters
        ----------
        x : array_like
            The inputs, as `explain` takes them; as many samples are used as go through the network in one pass.
        target : int, tuple, array_like or None, default None
            As in `explain`.
        **given : array_like
            As in `explain`.

        Returns
        -------
        Profile
            Seconds, multiply-adds and bytes of every step; prints as a table.
        """
        x, beside, executor, _, targets = self._asked(take(x)[0], target, given, whole=False)
        block = slice(0, executor.batch_size(len(x), targets.count))
        return executor.profile(x[block], rows(beside, block), targets.entry(block).relevance)

    def __repr__(self) -> str:
        kinds = ", ".join(at(None, r) for r in self._layers[:3]) + (", ..." if len(self._layers) > 3 else "")
        return f"Explainer([{kinds}], rules={shown(self._given.rules)}, backend={self._backend!r})"


def _rebuild(layers: list[L.Layer], arguments: dict[str, Any]) -> Explainer:
    return Explainer(layers, **arguments)
