"""zennit's Gradient: change `from zennit.attribution import Gradient` into `from dtdfast.compat.zennit import
Gradient`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..arrays.foreign import take
from ..errors import InputError, RuleError, at
from ..extras import require
from ..plan.fold import LINEAR
from ..rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, Zero, ZPlus
from .canonizers import left_by, scaled, with_factors
from .model import NORMS, Imported, executor_for, imported
from .relevance import Chosen, relevance

NAMES = (
    "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box",
    "excitation_backprop",
)  # fmt: skip


class Gradient:
    """The relevance that zennit's composites give, by dtdfast's kernels.

    Parameters
    ----------
    model : torch.nn.Module
        The model. It stays as it is: nothing is registered on it. Its weights are read at every call.
    composite : zennit.core.Composite or str, optional
        A composite of zennit, whose map from modules to rules is read at every call; or the name of one (`NAMES`) with
        its default options, which needs no zennit. Without a composite, or with one that has no rules, the result is
        PyTorch's gradient.
    attr_output : torch.Tensor of shape ``(n, *out)`` or callable, optional
        The relevance at the output, or a function of the output that returns it; by default the output itself.
    create_graph : bool, default False
        As in zennit; refused with a composite.
    retain_graph : bool, optional
        As in zennit.
    domain : (low, high), optional
        The box of "epsilon_gamma_box"; a composite has its own.
    backend : str, optional
        As in `dtdfast.explain`; by default "auto". float64 inputs are computed in float64 by every backend but "cuda".

    Raises
    ------
    RuleError
        The name is unknown, or the composite is not one of zennit's.
    NotImplementedError
        create_graph is set with a composite: relevance carries no gradient.

    Notes
    -----
    The maps are zennit's (convention="zennit": b⁺ in z⁺, 1e-6 in every denominator, average pools and additions in
    proportion) with its canonizers applied, whether the composite names them or not:

    - BatchNorms are merged into the layers before them: exactly, or where a canonizer of the composite merges them, as
      the installed one does (0.5.1 leaves a factor 1/√(1 + eps) on their outputs). A canonizer that merges one into a
      layer that does not feed it alone is refused. A BatchNorm that cannot be merged passes relevance; rules other than
      `Pass` on one are refused, and so is the want of a rule, for which zennit would multiply relevance by its scale.
    - Every addition takes the rule that the composite gives to zennit's `Sum`, or 1e-6 in proportion; without
      `ResNetCanonizer` zennit gives all relevance to both operands.
    - Operations called as functions take the rule of a module of their kind; activations and max-pools pass relevance,
      whatever they are. Weights without a rule, by which zennit would multiply relevance, are refused.
    - The rules are `Epsilon`, `Gamma`, `ZPlus`, `AlphaBeta`, `ZBox`, `WSquare`, `Flat`, `Norm` and `Pass`, with the
      parameters that they were made with; rules that change gradients (`ReLUDeconvNet`, `ReLUGuidedBackprop`,
      `ReLUBetaSmooth`), hooks of one's own and stabilizers other than a number are refused.
    - Hooks that are registered on modules by hand are not seen.
    """

    def __init__(
        self,
        model: Any,
        composite: Any = None,
        attr_output: Any = None,
        create_graph: bool = False,
        retain_graph: bool | None = None,
        *,
        domain: Any = "real",
        backend: str | None = None,
    ) -> None:
        if isinstance(composite, str) and composite not in NAMES:
            raise RuleError(f"composite {composite!r} is not one of {', '.join(NAMES)}")
        if (
            composite is not None
            and not isinstance(composite, str)
            and not callable(getattr(composite, "module_map", None))
        ):
            raise RuleError(f"composite is {composite!r}, expected one of zennit's, a name, or None")
        if create_graph and composite is not None:
            raise NotImplementedError("relevance carries no gradient; create_graph=True needs zennit itself")
        self.model, self.composite, self.attr_output = model, composite, attr_output
        self.create_graph, self.retain_graph = create_graph, retain_graph
        self.domain, self.backend = domain, backend

    def __enter__(self) -> Gradient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, input: Any, attr_output: Any = None) -> tuple[Any, Any]:  # noqa: A002  zennit's name
        """Compute the model's output and the relevance of the input.

        Parameters
        ----------
        input : torch.Tensor of shape (n, ...)
            The input.
        attr_output : torch.Tensor of shape ``(n, *out)`` or callable, optional
            As for the class, instead of what that was given.

        Returns
        -------
        output : torch.Tensor of shape ``(n, *out)``
            The output.
        relevance : torch.Tensor
            The relevance, of the input's shape, on its device, of the output's type.

        Raises
        ------
        InputError
            The input is not one tensor.
        DtdError
            The model cannot be explained, or a rule is not understood.
        """
        torch = require("torch", "peers")
        if not isinstance(input, torch.Tensor):
            raise InputError(f"input is a {type(input).__name__}, expected one torch.Tensor")
        start = self.attr_output if attr_output is None else attr_output
        if isinstance(self.composite, str):
            network = imported(self.model, input)
            chosen = Chosen(self.composite.replace("_", "-"))
        else:
            hooks = _Hooks(self.composite, self.model)
            if hooks.none:
                return self._gradient(torch, input, start)
            network = imported(self.model, input)
            left = left_by(self.composite.canonizers, network, self.model)
            if left:
                network = network.variant(tuple(left.items()), lambda exact: with_factors(exact, left))
            chosen = _choose(network, self.model, hooks, left)
        options = dict(convention="zennit", **executor_for(network, self.backend), domain=self.domain)
        if start is None or callable(start):
            output = network.explainer(chosen.rules, **options).predict(input).to(network.dtype)
            start = output if start is None else start(output)
        result, output = relevance(network, input, _floats(torch, start, network.dtype), chosen, None, options)
        return output.to(network.dtype), result.to(network.dtype)

    def _gradient(self, torch: Any, x: Any, start: Any) -> tuple[Any, Any]:
        if not (x.is_floating_point() or x.is_complex()):
            raise InputError(f"input holds {x.dtype}, along which there is no gradient; give a composite")
        x = x if x.requires_grad else x.detach().requires_grad_()
        output = self.model(x)
        start = output if start is None else start(output) if callable(start) else start
        options = dict(create_graph=self.create_graph, retain_graph=self.retain_graph)
        (gradient,) = torch.autograd.grad((output,), (x,), grad_outputs=(start,), **options)
        return output, gradient


def _floats(torch: Any, start: Any, dtype: Any) -> Any:
    """Relevance at the output as floats; whole numbers, which would be read as positions, are numbers all the same."""
    if not isinstance(start, torch.Tensor):
        raise InputError(
            f"attr_output is a {type(start).__name__}, expected a torch.Tensor or a function that makes one"
        )
    return start.detach().to(dtype)


# ------------------------------------------------------------------------------------------------------------ rules of
# composites


class _Hooks:
    """The hooks that a composite gives to a model's parts, asked for in zennit's order, since a composite may remember
    the first layer.
    """

    def __init__(self, composite: Any, model: Any) -> None:
        self._map = (lambda *_: None) if composite is None else composite.module_map
        self._context: dict[Any, Any] = {}
        self._of = {id(part): self._map(self._context, name, part) for name, part in model.named_modules()}
        self.none = all(hook is None for hook in self._of.values())

    def of(self, part: Any) -> Any:
        return self._of[id(part)]

    def functional(self, record: L.Layer) -> Any:
        """The hook of a module of this record's kind, for what a `forward` computes itself."""
        nn = require("torch", "peers").nn
        if isinstance(record, NORMS):
            return None
        if isinstance(record, L.Add):
            part = require("zennit.layer", "peers").Sum()
        elif isinstance(record, LINEAR):
            part = nn.Linear(1, 1) if isinstance(record, L.Linear) else nn.Conv2d(1, 1, 1)
        else:
            part = nn.AvgPool2d(1)
        return self._map(self._context, "", part)


def _choose(network: Imported, model: Any, hooks: _Hooks, left: dict[int, float]) -> Chosen:
    for name, part in model.named_modules():
        _check_hook(f"{type(part).__name__} {name!r}", hooks.of(part))
    rules: dict[int, Rule] = {}
    skipped, idle = [], network.idle()
    parts = network.parts(model)
    merged = {
        taker: (left[norm], parts[norm])
        for norm, takers in network.folded().items()
        if norm in left
        for taker in takers
    }
    for position in network.takers():
        record, part = network.layers[position], parts[position]
        where = at(position, record)
        hook = hooks.functional(record) if part is None or isinstance(record, L.Add) else hooks.of(part)
        kind = None if hook is None else _kind(hook)
        if isinstance(record, NORMS):
            if kind not in (None, "Pass"):
                raise RuleError(
                    f"{where} cannot be merged into a layer before it and passes relevance; {kind} is refused there"
                )
            if hook is None and part is not None:
                raise RuleError(
                    f"{where} has no rule in this composite; zennit would multiply relevance by its scale; give it Pass"
                )
        elif position in idle and (part is None or kind == "Pass"):
            rules[position] = Flat(stabilizer=0.0)  # a function that computes nothing is nothing
        elif hook is None and not (_averages(record) or isinstance(record, L.Add)):
            raise RuleError(f"{where} has no rule in this composite; zennit would multiply relevance by its weights")
        elif kind == "Pass" and not isinstance(record, L.Add):
            skipped.append(position)
            rules[position] = Epsilon()
        else:
            rules[position] = _rule(hook, record, where)
            if position in merged:
                factor, norm = merged[position]
                rules[position] = scaled(rules[position], factor, passes=hooks.of(norm) is not None, where=where)
    return Chosen(rules, tuple(skipped))


def _averages(record: L.Layer) -> bool:
    """Whether every output is a plain mean, along which a gradient is what the flat rule says."""
    if isinstance(record, L.Resample):
        return all(w is None or np.allclose(w * (w != 0).sum(axis=1, keepdims=True), w != 0) for w in record.weights)
    return isinstance(record, (L.AvgPool, L.GlobalAvgPool)) or (isinstance(record, L.Reduce) and record.kind == "mean")


def _rule(hook: Any, record: L.Layer, where: str) -> Rule:
    if hook is None:
        return Zero() if isinstance(record, L.Add) else Flat(stabilizer=0.0)
    kind = _kind(hook)
    if isinstance(record, L.Add):
        if kind not in ("Norm", "Pass"):
            raise RuleError(f"{where}: zennit's {kind} on an addition is not supported, only Norm and Pass")
        return Pass() if kind == "Pass" else Zero(stabilizer=_stabilizer(hook, where))
    return READERS[kind](hook, record, where)


def _check_hook(where: str, hook: Any) -> None:
    if hook is None:
        return
    kind = _kind(hook)
    if kind != "Pass" and kind not in READERS:
        raise RuleError(
            f"{where}: the rule {type(hook).__name__} has no equal here; known are Pass, {', '.join(READERS)}"
        )


def _kind(hook: Any) -> str:
    """The name of one of zennit's own rules; of anything else a name that no rule has."""
    cls = type(hook)
    return cls.__name__ if cls.__module__ == "zennit.rules" else f"{cls.__module__}.{cls.__name__}"


def _inside(function: Any, name: str, where: str) -> Any:
    """What a rule was made with: a variable that one of its functions encloses."""
    try:
        return inspect.getclosurevars(function).nonlocals[name]
    except (KeyError, TypeError):
        raise RuleError(
            f"{where}: this version of zennit keeps {name!r} elsewhere; tested are zennit 0.5.1 and 1.0.0"
        ) from None


def _stabilizer(hook: Any, where: str) -> float:
    found = _inside(hook.gradient_mapper, "stabilizer_fn", where)
    if type(found).__name__ != "Stabilizer" or found.clip or found.norm_scale:
        raise RuleError(f"{where}: only a stabilizer that adds a number is supported, not {found!r}")
    return float(found.epsilon)


def _no_bias(hook: Any, where: str) -> bool:
    """Whether the rule sets the bias to zero."""
    zero = hook.param_modifiers[0].zero_params or []
    names = [zero] if isinstance(zero, str) else list(zero)
    if set(names) - {"bias"}:
        raise RuleError(f"{where}: zero_params={zero!r}, expected nothing but 'bias'")
    return bool(names)


def _weighted(make: Callable[..., Rule], **read: Callable[[Any, str], Any]) -> Callable[[Any, L.Layer, str], Rule]:
    """Reads one of zennit's rules: `make` with what `read` finds, the stabilizer, and the bias where it is set to
    zero.
    """

    def reader(hook: Any, record: L.Layer, where: str) -> Rule:
        fields = {key: get(hook, where) for key, get in read.items()}
        if _no_bias(hook, where) and make is not Flat and make is not ZBox:
            fields["bias"] = "none"
        return make(**fields, stabilizer=_stabilizer(hook, where))

    return reader


def _alpha(name: str) -> Callable[[Any, str], float]:
    return lambda hook, where: float(_inside(hook.reducer, name, where))


def _gamma(hook: Any, where: str) -> float:
    return float(_inside(hook.param_modifiers[0].modifier, "gamma", where))


def _box(hook: Any, record: L.Layer, where: str) -> Rule:
    bounds = []
    for index, name in ((1, "low"), (2, "high")):
        bound = np.array(take(_inside(hook.input_modifiers[index], name, where))[0], np.float64)
        if bound.ndim > 1:  # with a batch axis
            if (bound != bound[:1]).any():
                raise RuleError(f"{where}: ZBox has another {name} for every sample; one for all is supported")
            bound = bound[0]
        bounds.append(bound)
    _no_bias(hook, where)
    return ZBox(*bounds, stabilizer=_stabilizer(hook, where))


READERS: dict[str, Callable[[Any, L.Layer, str], Rule]] = {
    "Epsilon": _weighted(Epsilon),
    "Norm": _weighted(Epsilon),
    "ZPlus": _weighted(ZPlus),
    "Gamma": _weighted(Gamma, gamma=_gamma),
    "AlphaBeta": _weighted(AlphaBeta, alpha=_alpha("alpha"), beta=_alpha("beta")),
    "WSquare": _weighted(WSquare),
    "Flat": _weighted(Flat),
    "ZBox": _box,
}
