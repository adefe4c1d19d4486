"""explain and predict of a PyTorch module or Keras model: imported on the way, and again when it has changed."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import torch
from numpy.random import Generator
from torch import nn

import dtdfast as dtd
from dtdfast import models
from support import normal


def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def test_a_module_is_imported_on_the_way(rng: Generator) -> None:
    network, x = module(), normal(rng, 2, 3, 6, 6)
    found = dtd.explain(network, x, 1)
    np.testing.assert_array_equal(found, dtd.explain(dtd.from_torch(network.eval(), torch.from_numpy(x)), x, 1))
    assert isinstance(dtd.explain(network, torch.from_numpy(x)), torch.Tensor)
    assert models.layers_of(network, x) is models.layers_of(network, x), "kept while the module stays the same"


def test_a_change_is_seen(rng: Generator) -> None:
    network, x = module().eval(), normal(rng, 2, 3, 6, 6)

    def agrees() -> None:
        expected = network(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(dtd.predict(network, x), expected, rtol=1e-5, atol=1e-6)

    agrees()
    with torch.no_grad():
        network[0].weight.mul_(2)
    agrees()
    network[1] = nn.Tanh()
    agrees()
    hook = network[1].register_forward_hook(lambda _, __, output: 2 * output)
    agrees()
    hook.remove()
    agrees()


def test_float64_and_words(rng: Generator) -> None:
    assert dtd.explain(module().double(), normal(rng, 1, 3, 6, 6).astype(np.float64)).shape == (1, 3, 6, 6)
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    assert dtd.explain(words, np.array([[1, 2, 3]])).shape == (1, 3)


def test_numbers_that_pytorch_does_not_know(rng: Generator) -> None:
    network, x = module().eval(), normal(rng, 2, 3, 6, 6)
    for kind in (">f4", np.longdouble):
        np.testing.assert_array_equal(dtd.predict(network, x.astype(kind)), dtd.predict(network, x))
    for tensor in (torch.empty(2, 3, 6, 6, device="meta"), torch.from_numpy(x).to(torch.float8_e5m2)):
        for model in (network, dtd.from_torch(network, torch.from_numpy(x))):
            with pytest.raises(dtd.InputError, match="that NumPy cannot read"):
                dtd.predict(model, tensor)


def test_modules_that_cannot_be_read() -> None:
    x = np.ones((1, 3), np.float32)
    for made, message in (
        (torch.jit.trace(nn.Linear(3, 2), torch.from_numpy(x)), "scripted or traced"),
        (nn.LazyLinear(2), "weight has no values yet"),
        (nn.Linear(3, 2, device="meta"), "weight has no values yet"),
    ):
        with pytest.raises(dtd.ModelError, match=message):
            dtd.explain(made, x)


def test_keras(rng: Generator) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)])
    x = normal(rng, 2, 6)
    np.testing.assert_array_equal(dtd.explain(model, x, 1), dtd.explain(dtd.from_keras(model), x, 1))
    assert models.layers_of(model, x) is models.layers_of(model, x)
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_allclose(dtd.predict(model, x), model(x).detach().cpu().numpy(), rtol=1e-5, atol=1e-6)


def test_keras_is_read_by_its_own_importer(rng: Generator) -> None:
    """Whatever its backend: a model on PyTorch's is a torch.nn.Module too, whose graph computes norms in pieces."""
    parts = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((6, 6, 3)), *parts, keras.layers.Dense(3)])
    x = normal(rng, 2, 6, 6, 3)
    np.testing.assert_array_equal(dtd.explain(model, x, 1), dtd.explain(dtd.from_keras(model), x, 1))
