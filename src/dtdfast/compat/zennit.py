"""zennit's Gradient: change `from zennit.attribution import Gradient` into `from dtdfast.compat.zennit import
Gradient`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import InputError, RuleError, at
from ..extras import require
from ..plan.units import shares
from ..plan.wiring import sources
from ..rules import Epsilon, Flat, Pass, Rule, Slope
from .canonizers import Canonized, canonized, scaled, with_factors
from .model import NORMS, Imported, executor_for, imported
from .relevance import Chosen, relevance
from .zennit_rules import READERS, kind_of, rule_for, rule_of_sum

NAMES = (
    "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box",
    "excitation_backprop",
)  # fmt: skip

PASSED = (*NORMS, L.ReLU, L.Activation)
GRADIENTS = (L.LRN, L.Mul)
BY_NAME = 'a composite\'s name, such as "epsilon_plus", explains it as dtdfast does'


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
    The maps are zennit's on the module as it is, with the canonizers that the composite names and no others: what has
    no rule there takes the gradient. Under a composite's name the maps are those of `dtdfast.explain`
    (convention="zennit"): BatchNorms merged, average pools and additions in proportion, activations passed.

    - BatchNorms that a canonizer merges are merged as the installed one does it (0.5.1 leaves a factor 1/√(1 + eps) on
      their outputs); a canonizer that merges one into a layer that does not feed it alone is refused. The others stay:
      under `Pass` relevance passes them, without a rule it is multiplied by their scale. Other rules on them are
      refused.
    - Additions that a canonizer has done by zennit's `Sum`, as `ResNetCanonizer` does, take the rule of that `Sum`;
      others hand all relevance to every operand. Canonizers that do neither are refused.
    - Operations called as functions have no rule: activations multiply relevance by their slope, average pools spread
      it evenly, shifts and scales multiply it by their scale. So do modules without a rule.
    - Refused, since zennit would take a gradient that is not implemented: weights, and average pools whose padding
      counts, without a rule; products of two computed tensors; LRN without `Pass`. So are rules on parts that hold
      other parts, on max-pools, and others than `Pass` on activations.
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
        passes = True  # a final softmax
        if isinstance(self.composite, str):
            network = imported(self.model, input)
            chosen = Chosen(self.composite.replace("_", "-"))
        else:
            hooks = _Hooks(self.composite, self.model)
            if hooks.none:
                return self._gradient(torch, input, start)
            network = imported(self.model, input)
            done = canonized(self.composite.canonizers, network, self.model)
            left = {position: factor for position, factor in done.left.items() if factor != 1.0}
            if left:
                network = network.variant(tuple(left.items()), lambda exact: with_factors(exact, left))
            chosen = _choose(network, self.model, hooks, done)
            part = network.parts(self.model)[-1]
            passes = part is not None and hooks.of(part) is not None
        options = dict(convention="zennit", **executor_for(network, self.backend), domain=self.domain)
        last = network.layers[-1]
        output: Any = None
        if start is None or callable(start) or isinstance(last, L.Softmax):
            output = network.answer(network.explainer(chosen.rules, **options).predict(input))
            start = start(output) if callable(start) else output if start is None else start
        start = _floats(torch, start, network.dtype)
        start = start[:, None] if network.numbers and start.ndim == 1 else start
        if isinstance(last, L.Softmax) and not passes and start.shape == output.shape:
            start = _before(last, output, start)
        result, seen = relevance(network, input, start, chosen, None, options)
        return network.answer(seen) if output is None else output, result.to(network.dtype)

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


def _before(last: L.Softmax, output: Any, start: Any) -> Any:
    """The gradient before a final softmax, of one behind it."""
    if last.log:
        return start - output.exp() * start.sum(last.axis, keepdim=True)
    return output * (start - (output * start).sum(last.axis, keepdim=True))


# ------------------------------------------------------------------------------------------------ rules of composites


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

    def asked(self, name: str, part: Any) -> Any:
        """The hook of a part that canonizers put in."""
        return self._map(self._context, name, part)


def _choose(network: Imported, model: Any, hooks: _Hooks, done: Canonized) -> Chosen:
    """The rule of every entry: that of its part's hook, or the gradient, which zennit takes through what has none."""
    parts = _layers(network, model)
    kept = [p for p, record in enumerate(network.layers) if isinstance(record, NORMS) and p not in done.left]
    folded = network.folded(kept=kept)
    _check_hooks(network, model, hooks, parts, folded)
    rules: dict[int, Rule] = {}
    skipped, idle = [], network.idle()
    shapes, reads = network.shapes(), sources(network.layers)
    merged = {
        taker: (factor, parts[norm]) for norm, factor in done.left.items() if factor != 1.0 for taker in folded[norm]
    }
    for position, record in enumerate(network.layers):
        if position in folded:
            continue
        part, where = parts[position], at(position, record)
        hook = None if part is None else hooks.of(part)
        if isinstance(record, L.Add):
            hook = _mark(done.sums.get(network.origins[position].within, ()), hooks, where) or hook
        kind = None if hook is None else kind_of(hook)
        if isinstance(record, PASSED):
            if kind not in (None, "Pass"):
                raise RuleError(
                    f"{where} shares no relevance by weights; {kind} is refused there, Pass or no rule is accepted"
                )
            if hook is None:
                rules[position] = Slope()
            elif isinstance(record, NORMS):
                rules[position] = Pass()
        elif isinstance(record, GRADIENTS) and kind != "Pass":
            raise RuleError(
                f"{where} has no rule in this composite, and zennit's gradient through it is not implemented; {BY_NAME}"
            )
        elif not shares(record):
            continue
        elif position in idle and (part is None or kind == "Pass"):
            rules[position] = Flat(stabilizer=0.0)  # a function that computes nothing is nothing
        elif hook is None and not (_averages(record) or isinstance(record, L.Add)):
            raise RuleError(
                f"{where} has no rule in this composite; zennit would multiply relevance by its weights; {BY_NAME}"
            )
        elif kind == "Pass" and not isinstance(record, L.Add):
            skipped.append(position)
            rules[position] = Epsilon()
        else:
            rules[position] = rule_for(hook, record, where, shapes[reads[position][0]])
            if position in merged:
                factor, norm = merged[position]
                rules[position] = scaled(rules[position], factor, passes=hooks.of(norm) is not None)
    return Chosen(rules, tuple(skipped))


def _layers(network: Imported, model: Any) -> list[Any]:
    """Of every entry the part that zennit may hook; None for functions."""
    nn = require("torch", "peers").nn
    found, parts = dict(model.named_modules(remove_duplicate=False)), network.parts(model)
    for position, origin in enumerate(network.origins):
        within = found.get(origin.within)  # a layer whose weights are computed is a layer all the same
        if parts[position] is None and not origin.hooked and isinstance(within, (nn.Linear, nn.modules.conv._ConvNd)):
            parts[position] = within
    return parts


def _mark(marks: Sequence[tuple[str, Any]], hooks: _Hooks, where: str) -> Any:
    """The hook of the `Sum` by which a canonizer has an addition done."""
    found = [hooks.asked(name, mark) for name, mark in marks]
    if len({None if hook is None else rule_of_sum(hook, where) for hook in found}) > 1:
        raise RuleError(
            f"{where}: its part has {len(found)} additions under different rules, and which one it is cannot be told"
        )
    return found[0] if found else None


def _check_hooks(network: Imported, model: Any, hooks: _Hooks, parts: list[Any], folded: Collection[int]) -> None:
    """Refuse the rules that are not understood, and those of parts that take none here."""
    nn = require("torch", "peers").nn
    nothing = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
    entries: dict[int, list[int]] = {}
    for position, part in enumerate(parts):
        if position not in folded or isinstance(network.layers[position], NORMS):
            entries.setdefault(id(part), []).append(position)
    within = {o.within.rpartition(".")[0] if o.path is not None else o.within for o in network.origins}
    shapes, reads = network.shapes(), sources(network.layers)
    for name, part in model.named_modules():
        hook, where = hooks.of(part), f"{type(part).__name__} {name!r}"
        if hook is None:
            continue
        kind, own = kind_of(hook), entries.get(id(part), [])
        if kind != "Pass" and kind not in READERS:
            raise RuleError(
                f"{where}: the rule {type(hook).__name__} has no equal here; known are Pass, {', '.join(READERS)}"
            )
        if not own and any(path == name or path.startswith(f"{name}." if name else "") for path in within):
            raise RuleError(f"{where}: {kind} on a part that holds other parts is not supported")
        if any(shares(network.layers[p]) or isinstance(network.layers[p], (*PASSED, *GRADIENTS)) for p in own):
            continue
        if not own and kind != "Pass" and isinstance(part, nothing):
            raise RuleError(f"{where}: {kind} on what changes nothing is not supported, Pass or no rule is")
        if own and (kind != "Pass" or any(shapes[p] != shapes[reads[p][0]] for p in own)):
            raise RuleError(f"{where}: {kind} on what shares no relevance by weights is not supported")


def _averages(record: L.Layer) -> bool:
    """Whether every output is a plain mean, along which a gradient is what the flat rule says: not where padding
    counts.
    """
    if isinstance(record, L.AvgPool):
        return not (record.count_include_pad and np.any(record.padding))
    if isinstance(record, L.Resample):
        return all(w is None or np.allclose(w * (w != 0).sum(axis=1, keepdims=True), w != 0) for w in record.weights)
    return isinstance(record, L.GlobalAvgPool) or (isinstance(record, L.Reduce) and record.kind == "mean")
