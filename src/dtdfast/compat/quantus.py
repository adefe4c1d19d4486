"""Quantus's explain_func: pass `explain_func=dtdfast.compat.quantus.explain` to a metric."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.foreign import take
from ..errors import ModelError, RuleError, TargetError
from ..extras import require
from .model import executor_for, imported

OPTIONS = ("rules", "domain", "convention", "backend", "batch_size", "n_threads")


def explain(model: Any, inputs: Any, targets: Any = None, *, device: Any = None, **options: Any) -> NDArray[Any]:
    """Explain a batch of inputs for one class each, as an explain_func of Quantus.

    Relevance starts with 1 at the class, and not with the output as elsewhere. Metrics that randomise weights compare
    maps of outputs of any sign, and Quantus refuses maps that are negative throughout.

    Parameters
    ----------
    model : torch.nn.Module
        The model, as Quantus passes it. Its weights are read at every call, so metrics may randomise them.
    inputs : array_like of shape (n, c, ...)
        The inputs.
    targets : array_like of int, of shape (n,), optional
        The classes; by default the largest output of each sample.
    device : object, optional
        Ignored: Quantus passes it to every explain_func, and `backend` decides where this one computes.
    **options
        rules, domain, convention, backend, batch_size and n_threads, as in `dtdfast.explain`. In a metric:
        `explain_func_kwargs=dict(rules="epsilon-plus")`.

    Returns
    -------
    ndarray
        The relevance, of the inputs' shape and floating type (the model's for word numbers). Quantus's own function
        sums over channels unless it is told not to.

    Raises
    ------
    RuleError
        An option is unknown.
    TargetError
        `targets` are not n classes of the model.
    DtdError
        The model cannot be explained.
    """
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise RuleError(f"{', '.join(sorted(unknown))}: unknown option; known are {', '.join(OPTIONS)}")
    torch = require("torch", "peers")
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    x = np.array(take(inputs)[0], order="C")  # a copy: PyTorch takes none that is read-only, or of another byte order
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    # Quantus perturbs in float64 whatever the model computes in
    kind = next((p.dtype for p in model.parameters()), torch.float32)
    tensor = torch.from_numpy(x).to(kind) if x.dtype.kind == "f" else torch.from_numpy(x)
    where = next((p.device for p in model.parameters()), tensor.device)
    network = imported(model, tensor.to(where))
    executor = executor_for(network, options.pop("backend", None))
    explainer = network.explainer(options.pop("rules", "dtd"), **executor, **options)
    n_outputs, *more = network.shapes()[len(network.layers) - 1]
    if more:
        sizes = ", ".join(map(str, (n_outputs, *more)))
        raise TargetError(f"the outputs have shape (n, {sizes}), expected (n, classes)")
    classes = np.asarray(explainer.predict(tensor).argmax(1) if targets is None else take(targets)[0])
    if classes.shape != (len(x),) or classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= n_outputs:
        raise TargetError(f"targets is {classes!r:.80}, expected {len(x)} classes from 0 to {n_outputs - 1}")
    result: NDArray[Any] = explainer.explain(tensor, np.eye(n_outputs)[classes]).numpy()
    return result.astype(x.dtype if x.dtype.kind == "f" else result.dtype, copy=False)
