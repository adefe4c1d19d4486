"""dtdfast beside iNNvestigate on VGG-16: python bench/keras_tools.py [N_IMAGES ...].

iNNvestigate 2.1 wants TensorFlow below 2.15, hence NumPy 1, and so an environment of its own (see README.md). Both
compute z+ without bias on every layer; maps are compared before the clock runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import innvestigate
import numpy as np
import tensorflow as tf

import dtdfast as dtd
import nets
from dtdfast import layers
from machine import threads
from nets import Net
from ours import Array, dtdfast

ROUNDS, SECONDS, TARGET = 3, 4.0, 0


def keras_model(net: Net) -> tf.keras.Model:
    """A chain of layers, channels last."""
    model = tf.keras.Sequential([tf.keras.layers.Input((*net.input_shape[1:], net.input_shape[0]))])
    channels = 0
    for layer in net.layers:
        if isinstance(layer, layers.Conv):
            channels, _, *kernel = layer.weight.shape
            model.add(tf.keras.layers.Conv2D(channels, kernel, padding="same"))
            model.layers[-1].set_weights([layer.weight.transpose(2, 3, 1, 0), layer.bias])
        elif isinstance(layer, layers.Linear):
            weight = layer.weight.T
            if channels:  # the first reads flattened pixels, channels first
                weight = weight.reshape(channels, -1, weight.shape[1]).swapaxes(0, 1).reshape(weight.shape)
                channels = 0
            model.add(tf.keras.layers.Dense(weight.shape[1]))
            model.layers[-1].set_weights([weight, layer.bias])
        elif isinstance(layer, layers.ReLU):
            model.add(tf.keras.layers.Activation("relu"))
        elif isinstance(layer, layers.MaxPool):
            model.add(tf.keras.layers.MaxPool2D(layer.kernel))
        elif isinstance(layer, layers.Flatten):
            model.add(tf.keras.layers.Flatten())
        elif not isinstance(layer, layers.Dropout):
            raise TypeError(f"no Keras layer for {layer}")
    return model


def innvestigate_explain(net: Net) -> Callable[[Array, int], Array]:
    rule = "lrp.alpha_1_beta_0_IB"
    analyzer = innvestigate.create_analyzer(rule, keras_model(net), neuron_selection_mode="index")
    return lambda images, target: analyzer.analyze(images.transpose(0, 2, 3, 1), target).transpose(0, 3, 1, 2)


def main() -> None:
    tf.compat.v1.disable_eager_execution()
    tf.config.threading.set_intra_op_parallelism_threads(threads())
    net = nets.vgg16()
    tools = {"dtdfast": dtdfast(net), "iNNvestigate": innvestigate_explain(net)}
    print(f"{threads()} threads, TensorFlow {tf.__version__}, NumPy {np.__version__}, dtdfast {dtd.__version__}")
    for n in [int(argument) for argument in sys.argv[1:]] or [1, 8]:
        images = net.sample(n, box=(0.0, 1.0))
        maps = {name: explain(images, TARGET) for name, explain in tools.items()}
        far = np.abs(maps["iNNvestigate"] - maps["dtdfast"]).sum() / np.abs(maps["dtdfast"]).sum()
        print(f"VGG-16, {n}: maps differ by {far:.1e} in L1")
        for name, explain in tools.items():
            seconds: list[float] = []
            while len(seconds) < ROUNDS or sum(seconds) < SECONDS:
                start = time.perf_counter()
                explain(images, TARGET)
                seconds.append(time.perf_counter() - start)
            print(f"  {name:14} min {1e3 * min(seconds):9.1f} ms, median {1e3 * np.median(seconds):9.1f} ms")


if __name__ == "__main__":
    main()
