"""Small networks of other shapes: an MLP, 2-d and 3-d CNNs, a U-Net, text."""

from __future__ import annotations

from .builder import Bias, Builder, Net, channels


def digits_mlp(*, seed: int | None = 0, bias: Bias = "random") -> Net:
    """64-128-64-10 on pixels in [0, 1]."""
    b = Builder((64,), seed, bias, box=(0.0, 1.0))
    b.linear(128)
    b.relu()
    b.linear(64)
    b.relu()
    b.linear(10)
    return b.net("digits MLP")


def mnist_mlp(*, seed: int | None = 0, bias: Bias = "random") -> Net:
    """784-300-100-10 on pixels in [0, 1]."""
    b = Builder((784,), seed, bias, box=(0.0, 1.0))
    for width in (300, 100):
        b.linear(width)
        b.relu()
    b.linear(10)
    return b.net("MLP")


def cnn(size: int = 8, divisor: int = 1, n_classes: int = 10, *, seed: int | None = 0, bias: Bias = "random") -> Net:
    """Two convolutions, two pools, two linear layers, on one channel of pixels in [0, 1]."""
    b = Builder((1, size, size), seed, bias, box=(0.0, 1.0))
    width = channels(divisor)
    b.conv(width(16), 3, padding=1)
    b.relu()
    b.max_pool(2)
    b.conv(width(32), 3, padding=1)
    b.relu()
    b.avg_pool(2)
    b.flatten()
    b.linear(width(64))
    b.relu()
    b.linear(n_classes)
    return b.net("CNN")


def video_cnn(
    size: int = 16, divisor: int = 1, n_classes: int = 10, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """3-d convolutions and pools over (frames, height, width)."""
    b = Builder((3, 8, size, size), seed, bias)
    width = channels(divisor)
    for c in (32, 64):
        b.conv(width(c), 3, padding=1, bias=False)
        b.batch_norm()
        b.relu()
        b.max_pool(2)
    b.conv(width(64), (2, 3, 3), padding=1, dilation=1)
    b.relu()
    b.global_avg_pool()
    b.flatten()
    b.linear(n_classes)
    return b.net("3-d CNN")


def unet(size: int = 128, divisor: int = 1, n_classes: int = 3, *, seed: int | None = 0, bias: Bias = "random") -> Net:
    """Three levels; one decoder step is a transposed convolution, the other upsampling and a convolution. Explains the
    centre pixel.
    """
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor)

    def twice(c: int) -> int:
        for _ in range(2):
            b.conv(width(c), 3, padding=1)
            b.relu()
        return b.last

    top = twice(64)
    b.max_pool(2)
    middle = twice(128)
    b.max_pool(2)
    twice(256)
    up = b.conv_transpose(width(128), 2, stride=2)
    b.concat(middle, up)
    twice(128)
    b.upsample(2)
    up = b.conv(width(64), 1)
    b.concat(top, up)
    twice(64)
    b.conv(n_classes, 1)
    return b.net("U-Net", target=(0, size // 2, size // 2))


def text_cnn(
    length: int = 64, divisor: int = 1, n_classes: int = 4, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """Sentence classification: word vectors, 1-d convolutions of three widths, each one's maximum over the sentence."""
    n_words = 1000
    b = Builder((length,), seed, bias, box=(-6.0, 6.0))
    width = channels(divisor)
    b.embedding(n_words, width(64))
    words = b.permute(0, 2, 1)
    branches = []
    for kernel in (3, 4, 5):
        b.conv(width(64), kernel, words)
        b.relu()
        branches.append(b.max_pool(length - kernel + 1))
    b.concat(*branches)
    b.flatten()
    b.dropout()
    b.linear(n_classes)
    return b.net("text CNN", n_words=n_words)
