"""LXT's efficient API: `monkey_patch` does nothing, and `relevance` takes the place of gradient × input."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.foreign import take
from ..errors import InputError, RuleError, TargetError
from ..extras import require
from ..plan.shapes import Shape
from ..presets import Rules
from .model import Imported, Named, executor_for, imported, per_sample


def monkey_patch(module: Any, patch_map: Any = None, verbose: bool = False) -> None:
    """Do nothing: nothing needs to be patched here.

    Parameters
    ----------
    module : module
        Left as it is.
    patch_map : dict, optional
        Refused: rules are chosen by `rules` of `relevance`.
    verbose : bool, default False
        Whether to say that nothing was patched.

    Raises
    ------
    RuleError
        A patch_map is given, whose rules would be ignored.
    """
    if patch_map is not None:
        raise RuleError(
            "patch_map is not read; choose the rules by relevance(..., rules=): 'attnlrp' (LXT's attnLRP maps), "
            "'cp-lrp' (its cp_LRP maps), or a rule such as dtdfast.Gamma(0.25)"
        )
    if verbose:
        print(f"{getattr(module, '__name__', module)} is left as it is; dtdfast patches nothing")


def relevance(
    model: Any,
    inputs: Any,
    target: Any = None,
    *,
    rules: Rules = "attnlrp",
    attention: str | None = None,
    keyword: str | None = None,
    backend: str | None = None,
    **arguments: Any,
) -> Any:
    """Explain one output of each sample, as gradient × input of a model that LXT has patched.

    Parameters
    ----------
    model : torch.nn.Module
        The model, not patched. Its first output is explained, such as the logits of a model of `transformers`. Weights
        are read at every call.
    inputs : torch.Tensor of shape (n, ...)
        What is explained: word indices, pixels, or word vectors with ``keyword="inputs_embeds"``.
    target : int, tuple, list or torch.Tensor, optional
        What is explained.

        - None: the largest output of each sample; the largest of the last token for outputs (n, tokens, classes).
        - An int: this class of every sample; of the last token for outputs (n, tokens, classes).
        - A tuple: this output of every sample; numbers below zero count from the end, as in (-1, 7).
        - A list or tensor of n ints: one class per sample.
        - Floats of the outputs' shape: the start relevance itself.
    rules : str, Rule, dict or callable, default "attnlrp"
        As in `dtdfast.explain`. "attnlrp" is LXT's default, "cp-lrp" its other set of rules.
    attention : {"held", "taylor"}, optional
        As in `dtdfast.explain`.
    keyword : str, optional
        The name by which the model's `forward` takes the inputs; by default they are its first argument.
    backend : str, optional
        As in `dtdfast.explain`; by default "auto". float64 models are computed in float64 by every backend but "cuda".
    **arguments
        What else the model's `forward` is called with, such as attention_mask. Where tensors among them hold one row
        per sample, every sample is explained with its own rows.

    Returns
    -------
    torch.Tensor
        The relevance, of the inputs' shape, on their device, of the outputs' type. For word indices it is that of the
        words, which LXT's users sum over the word vector's numbers.

    Raises
    ------
    InputError
        The inputs are not one tensor.
    TargetError
        `target` does not select outputs of the model.
    DtdError
        The model cannot be explained.

    Notes
    -----
    The map is that of LXT's efficient API with ε → 0: linear layers and norms (their scale held) by LRP-0, activations
    pass, the softmax by its Taylor rule, half of every product of two computed tensors to each factor. docs/lxt.md says
    where maps differ.
    """
    torch = require("torch", "peers")
    if not isinstance(inputs, torch.Tensor):
        raise InputError(f"inputs is a {type(inputs).__name__}, expected one torch.Tensor")
    names, n = list(arguments), len(inputs)
    target = tuple(map(_whole, target)) if isinstance(target, tuple) else _whole(target)

    def call(x: Any, *values: Any) -> Any:
        named = dict(zip(names, values, strict=True))
        return model(**{keyword: x}, **named) if keyword else model(x, **named)

    results = []
    for x, values, samples in per_sample(model, inputs, tuple(arguments.values()), [*range(n)], call):
        chosen = target if len(samples) == n else _of(target, samples[0], n)
        network = imported(model, x, named=Named(keyword, dict(zip(names, values, strict=True))))
        explainer = network.explainer(rules, attention=attention, **executor_for(network, backend))
        start = _target(chosen, network, lambda: explainer.predict(x.detach()), len(x))  # noqa: B023  called here
        results.append(explainer.explain(x.detach(), start).to(network.dtype))
    return torch.cat(results) if len(results) > 1 else results[0]


def _whole(target: Any) -> Any:
    """One number of any kind, such as logits[0, -1].argmax(), as an int."""
    if isinstance(target, int) or np.shape(target) != ():
        return target
    array = np.asarray(take(target)[0])
    return int(array) if array.dtype.kind in "iu" else target


def _of(target: Any, k: int, n: int) -> Any:
    """The target of sample k."""
    if target is None or isinstance(target, (int, tuple)):
        return target
    if len(target) != n:
        raise TargetError(f"target holds {len(target)} entries, but there are {n} samples")
    return target[k : k + 1]


def _target(target: Any, network: Imported, predict: Any, n: int) -> Any:
    """As `dtdfast.explain` takes it."""
    out: Shape = network.shapes()[len(network.layers) - 1]
    if len(out) == 1 and (target is None or isinstance(target, int)):
        return target
    if isinstance(target, tuple):
        if len(target) != len(out):
            raise TargetError(f"target is {target!r}; the outputs have {len(out)} axes behind the batch's")
        if not all(-size <= i < size for i, size in zip(target, out, strict=True)):
            raise TargetError(f"target is {target!r}; the outputs of a sample have the sizes {out}")
        return tuple(i % size for i, size in zip(target, out, strict=True))
    if target is not None and not isinstance(target, int):
        target = np.asarray(take(target)[0])
        if target.dtype.kind == "f" or len(out) == 1:
            return target
    if len(out) != 2:
        raise TargetError(f"the outputs have shape (n, {', '.join(map(str, out))}); name one by a tuple")
    if isinstance(target, int):
        return out[0] - 1, target
    values = np.asarray(take(predict())[0])
    classes = values[:, -1].argmax(axis=1) if target is None else target
    if np.shape(classes) != (n,) or np.min(classes) < 0 or np.max(classes) >= out[1]:
        raise TargetError(f"target is {target!r:.80}, expected {n} classes from 0 to {out[1] - 1}")
    start = np.zeros_like(values)
    start[np.arange(n), -1, classes] = values[np.arange(n), -1, classes]
    return start
