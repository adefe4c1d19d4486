"""LXT's drop-in against gradient × input of the gradients that LXT modifies, with ε = 0."""

from __future__ import annotations

import importlib.util
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dtdfast as dtd
from attention_models import CASES, SMALL
from dtdfast.compat.captum import LRP
from dtdfast.compat.lxt import monkey_patch, relevance
from dtdfast.compat.zennit import Gradient
from dtdfast.errors import DtdError, InputError, RuleError, TargetError
from held import Held, held_relevance

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

PRODUCTS = ("matmul", "bmm", "mul")


def divided(x: Tensor, by: float) -> Tensor:
    """The same numbers, and a part of the gradient."""
    return x.detach() * (1 - 1 / by) + x / by


class AttnLRP(Held):
    """Every call of PyTorch within has LXT's gradient: norms' scales held, activations pass, products of two computed
    tensors halved, so that queries and keys take a quarter and values a half.  All in float64.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name == "scaled_dot_product_attention":
            q, k, v, *others = args
            return function(divided(q, 4), divided(k, 4), divided(v, 2), *others, **kwargs)
        if name == "softmax":  # in its input's type
            return function(args[0], kwargs.get("dim", -1))
        if name == "to" and args[0].dtype == torch.float64:  # norms in float32
            return args[0]
        result = super().__torch_function__(function, types, args, kwargs)
        if name in PRODUCTS and all(isinstance(x, Tensor) and x.requires_grad for x in args[:2]):
            return divided(result, 2)
        return result


def reference(module: nn.Module, x: Tensor, start: Tensor) -> Tensor:
    return torch.from_numpy(held_relevance(module, x, start, mode=AttnLRP()))


class Block(nn.Module):
    """LayerNorm, RMSNorm, attention, a GELU and a gated SiLU; logits of every token."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
        self.before, self.behind = nn.LayerNorm(12), nn.RMSNorm(12)
        self.up, self.gate, self.down = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 12)
        self.plain, self.head = nn.Linear(12, 12), nn.Linear(12, 9)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        h = self.before(x)
        q, k, v = (p(h).unflatten(-1, (3, 4)).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + scale * self.o(mixed.transpose(1, 2).flatten(2))
        h = self.behind(x)
        x = x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))
        return self.head(nn.functional.gelu(self.plain(x)))


def small() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = Block().eval().double().requires_grad_(False)
    for value in module.parameters():
        value += 0.1 * torch.randn_like(value)
    return module, torch.randn(3, 5, 12, dtype=torch.float64)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-9) -> None:
    """As shares of all that the map holds."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert float((found - expected).abs().sum()) <= rtol * float(expected.abs().sum())
    assert expected.abs().max() > 0


def logit(outputs: Tensor, *where: Any) -> Tensor:
    """1 at these outputs, 0 elsewhere."""
    start = torch.zeros_like(outputs)
    start[where] = 1
    return start


BACKENDS = ("oracle", "cpu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_block(backend: str) -> None:
    """LXT's default map, also with a second call's other weights; its CP-LRP."""
    module, x = small()
    for _ in range(2):
        outputs = module(x)
        start = logit(outputs, slice(None), -1, 7)
        close(relevance(module, x, (-1, 7), backend=backend), reference(module, x, start))
        held = torch.from_numpy(held_relevance(module, x, start, gates=("silu",)))
        close(relevance(module, x, (-1, 7), rules="cp-lrp", backend=backend), held)
        module.q.weight.data *= 1.5


def test_the_reference_can_fail() -> None:
    """Plain gradients, and factors other than LXT's, are far away."""
    module, x = small()
    found = relevance(module, x, (-1, 7), backend="oracle")
    plain = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(plain)[:, -1, 7].sum(), plain)
    assert (found - x * gradient).abs().sum() > 0.1 * found.abs().sum()
    held = relevance(module, x, (-1, 7), rules="cp-lrp", backend="oracle")
    assert (found - held).abs().sum() > 0.1 * found.abs().sum()


NAMES = ("encoder", "encoder, causal", "encoder, norms first", "attention", "vit", "BERT", "GPT-2", "Llama", "Mistral")


@pytest.mark.parametrize("name", NAMES)
def test_whole_networks(name: str) -> None:
    case = CASES[name]
    if case.needs and importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"{case.needs} is not installed")
    module, x = case.module(), case.sample()
    with AttnLRP():
        outputs = module(x)
    start = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=outputs.dtype)
    expected = reference(module, x, start)
    close(relevance(module, x, start * outputs, backend="oracle"), expected, case.rtol)


def test_targets() -> None:
    """The last token's class, the largest, one per sample, numbers from the end, or a start."""
    module, x = small()
    outputs = module(x)
    largest = outputs[:, -1].argmax(-1)
    samples = torch.arange(3)
    every = {
        7: logit(outputs, slice(None), -1, 7),
        (-2, -1): logit(outputs, slice(None), 3, 8),
        (0, 1): logit(outputs, slice(None), 0, 1),
        None: logit(outputs, samples, -1, largest),
    }
    for target, start in every.items():
        close(relevance(module, x, target, backend="oracle"), reference(module, x, start))
    for target in (torch.tensor(7), np.int64(7), (torch.tensor(-1), 7)):  # what argmax() gives
        assert torch.equal(relevance(module, x, target, backend="oracle"), relevance(module, x, 7, backend="oracle"))
    expected = reference(module, x, logit(outputs, samples, -1, torch.tensor([4, 0, 8])))
    for target in ([4, 0, 8], torch.tensor([4, 0, 8]), np.array([4, 0, 8])):
        close(relevance(module, x, target, backend="oracle"), expected)


@pytest.mark.parametrize("target", [9, -1, (0,), (5, 0), (-6, 0), [1, 2], [1, 2, 9], torch.ones(3, 9)])
def test_targets_that_select_nothing(target: Any) -> None:
    module, x = small()
    with pytest.raises(TargetError):
        relevance(module, x, target, backend="oracle")


def test_what_else_a_forward_takes() -> None:
    module, x = small()
    doubled = relevance(module, x, 7, scale=2.0, keyword="x", backend="oracle")
    assert (doubled - relevance(module, x, 7, backend="oracle")).abs().max() > 1e-3
    module.o.weight *= 2
    module.o.bias *= 2
    close(relevance(module, x, 7, backend="oracle"), doubled)


class Shifted(nn.Module):
    """A shift per sample, and a dictionary for an answer."""

    def __init__(self, features: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 3)

    def forward(self, x: Tensor, shift: Tensor) -> dict[str, Tensor]:
        return {"logits": nn.functional.gelu(self.linear(x + shift)), "x": x}


def test_rows_of_other_arguments_belong_to_their_samples() -> None:
    torch.manual_seed(0)
    module, x, shift = Shifted().eval().double(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    together = relevance(module, x, [0, 2, 1], shift=shift, backend="oracle")
    for k, target in enumerate([0, 2, 1]):
        alone = relevance(module, x[k : k + 1], target, shift=shift[k : k + 1], backend="oracle")
        assert torch.equal(together[k : k + 1], alone)
    one = relevance(module, x, torch.tensor(2), shift=shift, backend="oracle")
    assert torch.equal(one, relevance(module, x, 2, shift=shift, backend="oracle"))
    shared = torch.randn(3).double()  # of as many numbers as there are samples
    square = Shifted(3).eval().double()
    together = relevance(square, x[:, :3], 1, shift=shared, backend="oracle")
    for k in range(3):
        assert torch.equal(together[k : k + 1], relevance(square, x[k : k + 1, :3], 1, shift=shared, backend="oracle"))
    with pytest.raises(TargetError, match="2 entries, but there are 3 samples"):
        relevance(module, x, [0, 2], shift=shift)


class Tolerant(nn.Module):
    """Takes from a mask what its samples need, and no more: a single one with the rows of three too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(ids)
        kept = attention_mask[: len(ids), None, :].bool().expand(len(ids), ids.shape[1], ids.shape[1])
        return self.head(nn.functional.scaled_dot_product_attention(x, x, x, kept).mean(1))


def test_masks_of_a_model_that_takes_too_many_rows() -> None:
    torch.manual_seed(0)
    module, ids = Tolerant().eval().double(), torch.tensor([[3, 1, 4], [1, 5, 2], [6, 5, 3]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    together = relevance(module, ids, 1, attention_mask=mask, backend="oracle")
    layers = dtd.from_torch(module, ids, attention_mask=mask)
    close(together, dtd.explain(layers, ids, 1, rules="attnlrp", attention_mask=mask, backend="oracle"))


def test_word_vectors_and_words() -> None:
    """Relevance of words is that of their vectors, summed."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL)).eval().double()
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    vectors = network.get_input_embeddings()(ids)
    of_words = relevance(network, ids, 1, backend="oracle")
    of_vectors = relevance(network, vectors, 1, keyword="inputs_embeds", backend="oracle")
    close(of_vectors.sum(-1), of_words)
    masked = relevance(network, ids[:1], 1, attention_mask=torch.ones(1, 5, dtype=torch.long), backend="oracle")
    close(masked, of_words[:1])


def test_results_are_as_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    module, x = small()
    result = relevance(module.float(), x.float())
    assert result.dtype == torch.float32
    assert not result.requires_grad
    monkey_patch(types.ModuleType("modeling_bert"), verbose=True)
    assert capsys.readouterr().out == "modeling_bert is left as it is; dtdfast patches nothing\n"


def test_refused() -> None:
    module, x = small()
    with pytest.raises(RuleError, match="patch_map is not read"):
        monkey_patch(nn, {nn.LayerNorm: print})
    with pytest.raises(InputError, match=r"expected one torch\.Tensor"):
        relevance(module, x.numpy())
    with pytest.raises(InputError, match=r"the input has shape \(12,\), expected \(n"):
        relevance(module, torch.zeros(12))
    with pytest.raises(RuleError, match="taylor"):
        relevance(module, x, 7, rules="dtd", attention="taylor")
    with pytest.raises(DtdError, match="another"):
        relevance(module, x, 7, another=1)


@pytest.mark.parametrize("packed", [lambda y: (y, None), lambda y: {"loss": None, "logits": y}, lambda y: [None, [y]]])
def test_models_that_return_other_things_beside_their_tensor(packed: Callable[[Tensor], Any]) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return packed(self.inner(x))

    model, x = Packed().eval(), torch.randn(2, 4)
    expected = relevance(model.inner, x, 1)
    for found in (relevance(model, x, 1), LRP(model).attribute(x, 1), Gradient(model, "epsilon_plus")(x)[1]):
        assert found.shape == expected.shape
    assert torch.equal(relevance(model, x, 1), expected)
