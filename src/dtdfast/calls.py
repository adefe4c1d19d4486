"""`explain` and `predict`: one call, for which an Explainer is kept until the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .cache import Cache, key_of
from .contrast import Contrast
from .explainer import Explainer
from .models import layers_of
from .options import Options
from .presets import Rules, settled

CACHE: Cache[Explainer] = Cache()


def cached(model: Any, options: Options, x: Any, given: dict[str, Any]) -> Explainer:
    """An Explainer for these very records and options; the cache holds them, so an id cannot be reused meanwhile."""
    layers = layers_of(model, x, given)

    def make() -> Explainer:
        return Explainer(layers, **vars(options))

    try:
        options = replace(options, rules=settled(options.rules, layers))
        key = (getattr(layers, "sample", None), tuple(map(id, layers)), key_of(tuple(vars(options).values())))
        hash(key)
    except (TypeError, ValueError, RuntimeError):  # not a list, or something that cannot be compared among the options
        return make()
    return CACHE.get(key, make)


def explain(
    layers: Any,
    x: Any,
    target: Any = None,
    *,
    against: Any = None,
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
    return_outputs: bool = False,
    return_ledger: bool = False,
    out: Any = None,
    progress: bool = False,
    **given: Any,
) -> Any:
    """Explain the outputs of a network by Deep Taylor Decomposition, or by another rule of the LRP family.

    This is `Explainer``(layers, **options)``.explain(x, target)`, with a small cache of Explainers for repeated calls.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network: a list of records in topological order. Or a PyTorch module, a Keras model, a scikit-learn
        estimator, an ONNX model, or the path of a file (.onnx, .pt2, or .safetensors as `save` writes it): it is
        imported on the way, and again when its weights or settings have changed.
    x : array_like
        The inputs: floats of shape ``(n, c, *space)`` or (n, features), or integers of shape (n, ...) for an Embedding.
        Arrays of NumPy, PyTorch, CuPy and JAX or over DLPack are taken, and tables of pandas and polars; those of
        PyTorch and CuPy on a GPU are read there by backend "cuda". A Dask array is explained lazily.
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
    against : int, array_like of int, "rest" or "softmax", optional
        What `target` is set against, to ask why this class and not another: short for ``Contrast(target, against)``. A
        z⁺ map alone shows what the network looked at, and hardly depends on the class: on SqueezeNet and four
        photographs, the maps of the two most likely classes have cosines of 0.955 to 0.998.
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
    LayerError
        A record, its place in the network, or an option that is a number is malformed, or the network cannot be
        explained. `WiringError` is the one about a record's `inputs`.
    RuleError
        A rule, preset or convention is unknown, or is given to an entry that takes none.
    BackendError
        The backend, precision or device is not usable here; the message says why.
    ShapeError
        An array does not fit the layer that receives it.
    InputError
        x has a wrong type, or holds NaN or infinity; `out` does not fit.
    DomainError
        `domain` is malformed, or x lies outside it.
    TargetError
        `target` selects no outputs of the network.
    ModelError
        A model or file cannot be imported.
    MemoryBudgetError
        One sample needs more memory than the budget, which is DTDFAST_MEMORY or half of the memory here.
    NumericsError
        The result overflowed its number type.

    See Also
    --------
    Explainer : Keeps packed weights and plans between calls; ledger, plan and profile.
    predict : The network's outputs.

    Notes
    -----
    Every rule distributes the relevance R_j of an output j over the inputs i of its layer:

        R_i = Σ_j n_ij / d_j · R_j,    d_j = Σ_i n_ij (+ bias and stabiliser, by rule).

    The rules' docstrings give n_ij and its source. w², z⁺ and zB follow from a first-order Taylor expansion of each
    neuron at a root point [1]_. LRP-0, ε and αβ are those of [2]_, γ is that of [3]_. CP-LRP is that of [4]_, AttnLRP
    that of [5]_. Under the convention "captum" the CPU computes values in float64 up to the last layer whose
    denominators may cancel, and returns float32; the printed plan says which layer that is.

    The bits of the result are the same from call to call, for any number of threads, and for a sample alone or within a
    batch.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479.
    .. [2] Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation", PLOS ONE 10 (2015), doi:10.1371/journal.pone.0130140.
    .. [3] Montavon et al., "Layer-wise relevance propagation: an overview" (2019), doi:10.1007/978-3-030-28954-6_10.
    .. [4] Ali et al., "XAI for transformers: better explanations through conservative propagation", arXiv:2202.07304.
    .. [5] Achtibat et al., "AttnLRP: attention-aware layer-wise relevance propagation for transformers",
       arXiv:2402.05602.

    Examples
    --------
    >>> layers = [dtdfast.Linear(weight, bias), dtdfast.ReLU(), dtdfast.Linear(weight_2, bias_2)]
    >>> relevance = dtdfast.explain(layers, x, target=3, domain=(0.0, 1.0))
    >>> relevance = dtdfast.explain("model.onnx", x)  # a file or a model is imported on the way
    """
    options = Options(
        rules, domain, convention, attention, backend, precision, batch_size, n_threads, device, start, stop
    )
    chosen = target if against is None else Contrast(target, against)
    return cached(layers, options, x, given).explain(
        x,
        chosen,
        return_outputs=return_outputs,
        return_ledger=return_ledger,
        out=out,
        progress=progress,
        **given,
    )


def predict(
    layers: Any,
    x: Any,
    *,
    backend: str = "auto",
    batch_size: int | None = None,
    n_threads: int | None = None,
    **given: Any,
) -> Any:
    """Compute the outputs of a network.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network: a list of records in topological order. Or a PyTorch module, a Keras model, a scikit-learn
        estimator, an ONNX model, or the path of a file (.onnx, .pt2, or .safetensors as `save` writes it): it is
        imported on the way, and again when its weights or settings have changed.
    x : array_like
        The inputs: floats of shape ``(n, c, *space)`` or (n, features), or integers of shape (n, ...) for an Embedding.
    backend : {"auto", "cpu", "cuda", "oracle"}, default "auto"
        The executor, as in `explain`.
    batch_size : int, optional
        The number of samples per pass through the network; by default as many as the memory budget allows.
    n_threads : int, optional
        The number of threads on the CPU; by default OMP_NUM_THREADS as it is when dtdfast is imported, else the
        number of cores that this process may use.
    **given : array_like
        What the network's Givens are called, as in `explain`.

    Returns
    -------
    array
        The outputs of the list as it is written, a final Softmax included: of shape ``(n, *out)``, of x's kind, lazy
        for a Dask array.

    Raises
    ------
    DtdError
        What `explain` raises for the network, its options and x.

    See Also
    --------
    explain : Which inputs an output comes from.

    Examples
    --------
    >>> classes = dtdfast.predict("model.onnx", x).argmax(axis=1)
    """
    options = Options(backend=backend, batch_size=batch_size, n_threads=n_threads)
    return cached(layers, options, x, given).predict(x, **given)
