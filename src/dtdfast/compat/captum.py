"""captum's LRP and LayerLRP: change `from captum.attr import LRP` into `from dtdfast.compat.captum import LRP`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import InputError, LayerError, ModelError, at
from ..extras import require
from ..plan.fold import LINEAR
from ..plan.wiring import sources
from ..rules import Epsilon, Flat, Rule
from .captum_rules import KNOWN, UnsuitableRuleError, is_captums, kind_of, output_index, rule_for, targets_of, title_of
from .model import NORMS, Imported, executor_for, imported, per_sample
from .relevance import Chosen, relevance

# Activations with f(0) ≠ 0, for which captum has no default either: relevance that passes them would come from nothing.
REFUSED = ("Sigmoid", "Hardsigmoid", "LogSigmoid", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "Softplus")
FUNCTIONS = ("sigmoid", "hard_sigmoid", "log_sigmoid", "softplus")  # the same, called in a `forward`


class ReusedModuleError(ModelError, RuntimeError):
    """A layer with weights is called more than once; a RuntimeError, as in captum."""


def _wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that also has itself as `__wrapped__`, by which captum's NoiseTunnel calls it."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call


class _Tool:
    """What both have: what captum's own tools, such as NoiseTunnel, ask of a method."""

    def __init__(self, model: Any, *, backend: str | None = None, precision: str | None = None) -> None:
        if not hasattr(model, "named_modules"):
            raise ModelError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
        self.model = model
        self.backend, self.precision = backend, precision
        for name, part in model.named_modules():
            rule = getattr(part, "rule", None)
            if rule is not None and not isinstance(rule, Rule) and not is_captums(rule):
                raise UnsuitableRuleError(
                    f"the rule of {title_of(name, part)} is {rule!r}, expected one of captum's (a PropagationRule) or "
                    "of dtdfast's"
                )

    @property
    def forward_func(self) -> Any:
        """The model."""
        return self.model

    @property
    def multiplies_by_inputs(self) -> bool:
        """Always True, as in captum."""
        return True

    def has_convergence_delta(self) -> bool:
        """Whether `attribute` can return a convergence delta.

        Returns
        -------
        bool
            Always True, as in captum.
        """
        return True

    def attribute_future(self) -> None:
        """Not implemented, as in captum.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("attribute_future is not implemented for LRP")

    def compute_convergence_delta(self, attributions: Any, output: Any) -> Any:
        """The output minus the sum of relevance, per sample.

        Parameters
        ----------
        attributions : torch.Tensor of shape (n, ...), or tuple of them
            The relevance.
        output : torch.Tensor of shape (n,)
            The output that was explained.

        Returns
        -------
        torch.Tensor of shape (n,)
            The difference.
        """
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        return output.flatten() - sum(part.flatten(1).sum(1) for part in parts)

    def _explained(
        self, inputs: Any, target: Any, arguments: Any, verbose: bool, where: Callable[[_Call], list[int | None]]
    ) -> list[tuple[Any, Any]]:
        """Relevance and delta at each of the entries that `where` names."""
        torch = require("torch", "peers")
        x = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        if not isinstance(x, torch.Tensor):
            raise InputError(
                f"inputs is a {type(x).__name__}, expected one torch.Tensor: several inputs are not supported"
            )
        arguments = () if arguments is None else arguments if isinstance(arguments, tuple) else (arguments,)
        _check_parts(self.model)
        found: list[list[tuple[Any, Any]]] = []
        for part, own, entry in per_sample(self.model, x, arguments, targets_of(target, len(x))):
            call = _Call(self, part, entry, own, verbose and not found)
            results = [call.relevance(stop) for stop in where(call)]
            found.append([(result, self.compute_convergence_delta(result, call.outputs)) for result in results])
        return (
            [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*found, strict=True)]
            if len(found) > 1
            else found[0]
        )


class LRP(_Tool):
    """Layer-wise relevance propagation as captum computes it, by dtdfast's kernels.

    Parameters
    ----------
    model : torch.nn.Module
        The model. A layer's attribute `rule` may be captum's `EpsilonRule`, `GammaRule`, `Alpha1_Beta0_Rule` or
        `IdentityRule`, or a rule of dtdfast. A layer without one takes ε = 1e-9, as in captum. Rules and weights are
        read at every call.
    backend : str, optional
        As in `dtdfast.explain`; by default "auto". float64 inputs are computed in float64 by every backend but "cuda".
    precision : str, optional
        As in `dtdfast.explain`; by default "float64" for float64 models, else "float32". "single" is as close to
        captum's float64 maps as captum's own float32 maps are.

    Raises
    ------
    TypeError
        A layer's `rule` is no rule.

    Notes
    -----
    The maps are captum's (convention="captum"): x·w⁺ with the sign of x, the bias with its sign, 1e-9 in every
    denominator, average pools and additions in proportion. They differ where captum's answer depends on how a model is
    written rather than on what it computes:

    - Additions in a `forward` are treated as captum's `Addition_Module`.
    - BatchNorms stay layers of their own, as there, with the ε or identity rule. Other rules on them are refused.
    - Operations called as functions are treated as modules of their kind. Convolutions and pools of one and three
      dimensions, and activations with f(0) = 0, are explained too.
    - The model is taken in evaluation mode: Dropout is left out. BatchNorms in training mode are refused.
    - Rules stay on the layers after a call; captum takes them away.
    - On the CPU, what float32 cannot hold is computed in float64: values up to the last layer whose sums may cancel,
      under the ε, γ and α1β0 rules, and relevance where a layer divides it. For float32 inputs the map is captum's of
      `model.double()`, except for the rounding of relevance.
    - Results carry no gradient: explanations of explanations need captum.
    - There is one input tensor; several are refused.
    """

    @_wrapped
    def attribute(
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Compute the relevance of the inputs for one output of each sample.

        Parameters
        ----------
        inputs : torch.Tensor of shape (n, ...), or tuple of one
            The inputs.
        target : int, tuple, list or torch.Tensor, optional
            The output that is explained: an int or a tuple for all samples, a list of n of them, or a tensor of 1 or n
            ints. It may be left out where there is only one.
        additional_forward_args : object or tuple, optional
            What the model's `forward` takes after the inputs. Where tensors among them hold one row per sample, every
            sample is explained with its own rows.
        return_convergence_delta : bool, default False
            Whether to return, per sample, the output minus the sum of relevance too.
        verbose : bool, default False
            Whether to print the rule of every layer.

        Returns
        -------
        attributions : torch.Tensor, or tuple of one
            The relevance, of the inputs' shape, on their device, of the outputs' type. Its sum is the output that was
            explained, except for what biases and ε absorb.
        delta : torch.Tensor of shape (n,)
            Only with return_convergence_delta.

        Raises
        ------
        DtdError
            The model cannot be explained. As in captum, it is also a TypeError for a layer without a rule, and a
            RuntimeError for a layer with weights that is called twice.
        """
        ((result, delta),) = self._explained(inputs, target, additional_forward_args, verbose, lambda call: [None])
        attributions = (result,) if isinstance(inputs, tuple) else result
        return (attributions, delta) if return_convergence_delta else attributions


class LayerLRP(_Tool):
    """Layer-wise relevance propagation to inner layers, as captum computes it.

    Parameters
    ----------
    model : torch.nn.Module
        As in `LRP`.
    layer : torch.nn.Module or list of torch.nn.Module
        The layers.
    backend, precision : str, optional
        As in `LRP`.

    Raises
    ------
    TypeError
        A layer's `rule` is no rule.
    """

    def __init__(self, model: Any, layer: Any, *, backend: str | None = None, precision: str | None = None) -> None:
        super().__init__(model, backend=backend, precision=precision)
        self.layer = layer

    @_wrapped
    def attribute(
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Compute the relevance of the layer's output, or of its input, for one output of each sample.

        Parameters
        ----------
        inputs : torch.Tensor of shape (n, ...), or tuple of one
            The inputs.
        target : int, tuple, list or torch.Tensor, optional
            The output that is explained: an int or a tuple for all samples, a list of n of them, or a tensor of 1 or n
            ints. It may be left out where there is only one.
        additional_forward_args : object or tuple, optional
            What the model's `forward` takes after the inputs. Where tensors among them hold one row per sample, every
            sample is explained with its own rows.
        return_convergence_delta : bool, default False
            Whether to return, per sample, the output minus the sum of relevance too.
        attribute_to_layer_input : bool, default False
            Whether to take the layer's input instead of its output.
        verbose : bool, default False
            Whether to print the rule of every layer.

        Returns
        -------
        attributions : torch.Tensor, or list of them for a list of layers
            The relevance, of the shape of the layer's output or input.
        delta : torch.Tensor of shape (n,), or list of them
            Only with return_convergence_delta.

        Raises
        ------
        DtdError
            The model cannot be explained, or a layer takes no part in what it computes.
        """
        layers = self.layer if isinstance(self.layer, list) else [self.layer]

        def where(call: _Call) -> list[int | None]:
            return [call.position(layer, attribute_to_layer_input) for layer in layers]

        explained = self._explained(inputs, target, additional_forward_args, verbose, where)
        if not isinstance(self.layer, list):
            return explained[0] if return_convergence_delta else explained[0][0]
        results, deltas = (list(column) for column in zip(*explained, strict=True))
        return (results, deltas) if return_convergence_delta else results


class _Call:
    """One call's model, input and target.

    Attributes
    ----------
    outputs : what was explained, (n,), once relevance has been asked for
    """

    def __init__(self, tool: _Tool, x: Any, target: Any, arguments: tuple[Any, ...], verbose: bool) -> None:
        self.x, self.model, self.verbose = x, tool.model, verbose
        self.network = imported(self.model, self.x, arguments)
        self.parts = self.network.parts(self.model)
        _check_calls(self.network, self.parts)
        self.index = output_index(target, len(self.x), self.network.shapes()[len(self.network.layers) - 1])
        # decides what float32 can hold
        domain = "nonnegative" if self.x.is_floating_point() and bool((self.x >= 0).all()) else "real"
        self.options = dict(
            convention="captum", domain=domain, **executor_for(self.network, tool.backend, tool.precision)
        )
        self.outputs: Any = None

    def position(self, layer: Any, before: bool) -> int | None:
        """The entry whose output is this layer's, or its input; None for the network's input."""
        positions = [p for p, part in enumerate(self.network.parts(self.model, hooks=True)) if part is layer]
        if not positions:
            raise LayerError(
                f"layer {layer} does not take part in what the model computes, or holds other layers; name one of those"
            )
        if not before:
            return positions[-1]
        reads = sources(self.network.layers)[positions[0]]
        if len(reads) > 1:
            raise LayerError(f"layer {layer} has {len(reads)} inputs; name the layers that these come from")
        return None if reads[0] == L.INPUT else reads[0]

    def relevance(self, stop: int | None) -> Any:
        chosen = self.chosen(stop)
        samples = np.arange(len(self.x))
        if self.index.shape[1] == 1:
            target: Any = self.index[:, 0]
        else:
            values = self.network.explainer(chosen.rules, stop=stop, **self.options).predict(self.x).cpu().numpy()
            target = np.zeros_like(values)
            target[(samples, *self.index.T)] = values[(samples, *self.index.T)]
        result, outputs = relevance(self.network, self.x, target, chosen, stop, self.options)
        self.outputs = outputs[(samples, *self.index.T)].to(self.network.dtype)
        return result.to(self.network.dtype)

    def chosen(self, stop: int | None) -> Chosen:
        rules: dict[int, Rule] = {}
        skipped, idle = [], self.network.idle()
        norms = [
            p
            for p, record in enumerate(self.network.layers)
            if isinstance(record, L.BatchNorm) and self.parts[p] is not None
        ]
        for position in self.network.takers(stop, norms):
            record, part = self.network.layers[position], self.parts[position]
            given = getattr(part, "rule", None)
            if kind_of(given) == "IdentityRule" and not isinstance(record, (*NORMS, L.Add)):
                skipped.append(position)
                rules[position] = Epsilon()  # above it nothing is read from this rule, but "dtd" would take another
            elif part is None and position in idle:
                rules[position] = Flat(stabilizer=0.0)  # a function that computes nothing is nothing
            else:
                rules[position] = rule_for(record, given, at(position, record))
            if self.verbose:
                print(f"Applied {given or rules[position]} on layer {at(position, record)}")
        return Chosen(rules, tuple(skipped))


def _check_parts(model: Any) -> None:
    """Refuse what captum refuses for want of a rule, and rules that are not understood."""
    norms = require("torch", "peers").nn.modules.batchnorm._NormBase
    for name, part in model.named_modules():
        given = getattr(part, "rule", None)
        kind, epsilon = kind_of(given), getattr(given, "STABILITY_FACTOR", 1e-9)
        reason = None
        if given is None and type(part).__name__ in REFUSED:
            reason = "it has no rule, and there is no default for it; set its rule to dtdfast.Pass() to skip it"
        elif kind is not None and kind not in KNOWN:
            reason = f"its rule is a {kind}; known are {', '.join(KNOWN)} and the rules of dtdfast"
        elif isinstance(part, norms) and kind in ("GammaRule", "Alpha1_Beta0_Rule"):
            reason = f"{kind} does not suit a BatchNorm; give it to the layer before it"
        elif kind == "EpsilonRule" and type(part).__name__.startswith("MaxPool") and epsilon != 1e-9:
            reason = f"the ε of a max-pool is 1e-9 and cannot be {epsilon}"
        if reason is not None:
            raise UnsuitableRuleError(f"{title_of(name, part)}: {reason}")


def _check_calls(network: Imported, parts: list[Any]) -> None:
    """Refuse layers that are called twice, and functions whose modules have no rule; a gate takes no relevance."""
    calls: dict[str, set[tuple[str, ...]]] = {}
    for origin, record in zip(network.origins, network.layers, strict=True):
        if origin.path is not None and not origin.hooked and isinstance(record, (*LINEAR, *NORMS)):
            calls.setdefault(origin.path, set()).add(origin.calls)
    for path, seen in calls.items():
        if len(seen) > 1:
            raise ReusedModuleError(
                f"module {path!r} is called more than once; captum's LRP has no answer for that, dtdfast.explain has"
            )
    layers, reads = network.layers, sources(network.layers)
    for position, record in enumerate(layers):
        alone = parts[position] is None and isinstance(record, L.Activation) and record.kind in FUNCTIONS
        taken = [r for p, r in enumerate(layers) if position in reads[p]] if alone else []
        ends = record is layers[-1] and parts[-1] is None and isinstance(record, L.Softmax)
        if ends or (alone and not (taken and all(isinstance(r, L.Mul) for r in taken))):
            raise UnsuitableRuleError(
                f"{at(position, record)} has no rule as a function; explain what is before, or make it a module whose "
                "rule is dtdfast.Pass()"
            )
