"""Train the demo's network on scikit-learn's digits, and write it and its held-out images into the package.

    python tools/train_digits.py            (ten seconds; needs dtdfast[io] and scikit-learn)

Conv 3×3, ReLU, Conv 3×3, ReLU, MaxPool 2, Linear, ReLU, Linear, with every bias kept ≤ 0: then z⁺ relevance is
conserved exactly. Adam on the cross-entropy, on images shifted by up to a pixel, in plain NumPy with activations (n, h,
w, c).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import dtdfast as dtd

SEED = 7
EPOCHS, BATCH = 60, 64
RATE, DECAY = 2e-3, 2e-4  # Adam's step (falling to 0 along a cosine), L2 penalty on the weights
CHANNELS, HIDDEN = 16, 64
DATA = Path(__file__).parents[1] / "src" / "dtdfast" / "data"


def conv(x, w, b):
    """y[n,p,q,o] = b[o] + sum_{c,i,j} x[n,p+i-1,q+j-1,c] w[o,c,i,j]; also returns the windows of x, for the
    gradient.
    """
    # (n, h, w, c, 3, 3)
    windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))
    columns = windows.reshape(*x.shape[:3], -1)
    return columns @ w.reshape(len(w), -1).T + b, columns


def conv_gradients(g, columns, w):
    """Gradients by w, b and x of `conv`, from the gradient g (n, h, w, c_out) by its result."""
    flipped = w[:, :, ::-1, ::-1].swapaxes(0, 1)
    return np.tensordot(g, columns, axes=([0, 1, 2],) * 2).reshape(w.shape), g.sum((0, 1, 2)), conv(g, flipped, 0)[0]


def forward(p, x):
    """Logits of images (n, 8, 8, 1), and what the gradient needs."""
    y1, columns1 = conv(x, p["w1"], p["b1"])
    y2, columns2 = conv(np.maximum(y1, 0), p["w2"], p["b2"])
    n, h, w, c = y2.shape
    blocks = np.maximum(y2, 0).reshape(n, h // 2, 2, w // 2, 2, c)
    pooled = blocks.max((2, 4))
    flat = pooled.transpose(0, 3, 1, 2).reshape(n, -1)  # the package flattens (c, h, w)
    y3 = flat @ p["w3"].T + p["b3"]
    a3 = np.maximum(y3, 0)
    return a3 @ p["w4"].T + p["b4"], (y1, columns1, y2, columns2, blocks, pooled, flat, y3, a3)


def gradients(p, x, labels):
    """Gradient of the mean cross-entropy by every parameter."""
    logits, (y1, columns1, y2, columns2, blocks, pooled, flat, y3, a3) = forward(p, x)
    g4 = np.exp(logits - logits.max(1, keepdims=True))
    g4 /= g4.sum(1, keepdims=True)
    g4[np.arange(len(x)), labels] -= 1
    g4 /= len(x)
    g3 = (g4 @ p["w4"]) * (y3 > 0)
    n, h, w, c = pooled.shape
    g_pooled = (g3 @ p["w3"]).reshape(n, c, h, w).transpose(0, 2, 3, 1)[:, :, None, :, None]
    g2 = (g_pooled * (blocks == pooled[:, :, None, :, None])).reshape(y2.shape) * (y2 > 0)
    g_w2, g_b2, g_a1 = conv_gradients(g2, columns2, p["w2"])
    g_w1, g_b1, _ = conv_gradients(g_a1 * (y1 > 0), columns1, p["w1"])
    return {
        "w1": g_w1,
        "b1": g_b1,
        "w2": g_w2,
        "b2": g_b2,
        "w3": g3.T @ flat,
        "b3": g3.sum(0),
        "w4": g4.T @ a3,
        "b4": g4.sum(0),
    }


def shifted(images, rng):
    """Each image moved by up to a pixel along each axis."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    top, left = rng.integers(0, 3, (2, len(images)))
    rows, columns = top[:, None] + np.arange(8), left[:, None] + np.arange(8)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(images, labels):
    """Parameters after EPOCHS of Adam, with the biases clipped at 0 after each step."""
    rng = np.random.default_rng(SEED)
    shapes = {
        "1": (CHANNELS, 1, 3, 3),
        "2": (CHANNELS, CHANNELS, 3, 3),
        "3": (HIDDEN, CHANNELS * 16),
        "4": (10, HIDDEN),
    }
    p = {f"w{k}": rng.standard_normal(s) * np.sqrt(2 / np.prod(s[1:])) for k, s in shapes.items()}
    p |= {f"b{k}": np.zeros(s[0]) for k, s in shapes.items()}
    mean, square = ({key: np.zeros_like(value) for key, value in p.items()} for _ in range(2))
    n_steps, step = EPOCHS * -(-len(images) // BATCH), 0
    for _ in range(EPOCHS):
        for batch in np.split(rng.permutation(len(images)), range(BATCH, len(images), BATCH)):
            g = gradients(p, shifted(images[batch], rng), labels[batch])
            step += 1
            rate = RATE * (1 + np.cos(np.pi * step / n_steps)) / 2
            for key in p:
                g_key = g[key] + DECAY * p[key] if key[0] == "w" else g[key]
                mean[key] += 0.1 * (g_key - mean[key])
                square[key] += 0.001 * (g_key**2 - square[key])
                p[key] -= rate * (mean[key] / (1 - 0.9**step)) / (np.sqrt(square[key] / (1 - 0.999**step)) + 1e-8)
                if key[0] == "b":
                    p[key] = np.minimum(p[key], 0)
    return p


def main():
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels.astype(np.uint8).reshape(-1, 8, 8), labels.astype(np.uint8)  # values 0 … 16
    train_pixels, test_pixels, train_labels, test_labels = train_test_split(
        pixels, labels, test_size=0.3, random_state=0, stratify=labels
    )
    p = train(train_pixels[..., None] / 16, train_labels)
    p = {key: value.astype(np.float32) for key, value in p.items()}
    accuracy = (forward(p, test_pixels[..., None] / 16)[0].argmax(1) == test_labels).mean()
    layers = [
        dtd.Conv(p["w1"], p["b1"], padding=1, name="conv1"),
        dtd.ReLU(),
        dtd.Conv(p["w2"], p["b2"], padding=1, name="conv2"),
        dtd.ReLU(),
        dtd.MaxPool(2),
        dtd.Flatten(),
        dtd.Linear(p["w3"], p["b3"], name="hidden"),
        dtd.ReLU(),
        dtd.Linear(p["w4"], p["b4"], name="digit"),
    ]
    dtd.save(layers, DATA / "digits.safetensors")
    np.savez_compressed(DATA / "digits_test.npz", images=test_pixels, labels=test_labels)
    sizes = ", ".join(f"{file.name} {file.stat().st_size / 1000:.0f} kB" for file in sorted(DATA.glob("digits*")))
    print(f"test accuracy {accuracy:.2%} on {len(test_labels)} images; {sizes}")


if __name__ == "__main__":
    main()
