"""Chains and parallel branches: LeNet-5, AlexNet, VGG-16, SqueezeNet, GoogLeNet."""

from __future__ import annotations

from .builder import Bias, Builder, Net, channels


def lenet5(*, seed: int | None = 0, bias: Bias = "random") -> Net:
    """LeNet-5 on 28 × 28 digits in [0, 1], with ReLUs and max-pools."""
    b = Builder((1, 28, 28), seed, bias, box=(0.0, 1.0))
    b.conv(6, 5, padding=2)
    b.relu()
    b.max_pool(2)
    b.conv(16, 5)
    b.relu()
    b.max_pool(2)
    b.flatten()
    for width in (120, 84):
        b.linear(width)
        b.relu()
    b.linear(10)
    return b.net("LeNet-5")


def alexnet(
    size: int = 227, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """AlexNet as published: two groups, local response normalisation, overlapping pools."""
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor, 2)
    b.conv(width(96), 11, stride=4)
    b.relu()
    b.lrn(5)
    b.max_pool(3, stride=2)
    b.conv(width(256), 5, padding=2, groups=2)
    b.relu()
    b.lrn(5)
    b.max_pool(3, stride=2)
    for c, groups in ((384, 1), (384, 2), (256, 2)):
        b.conv(width(c), 3, padding=1, groups=groups)
        b.relu()
    b.max_pool(3, stride=2)
    b.flatten()
    for _ in range(2):
        b.linear(width(4096))
        b.relu()
        b.dropout()
    b.linear(n_classes)
    return b.net("AlexNet")


def vgg16(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor)
    for c, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            b.conv(width(c), 3, padding=1)
            b.relu()
        b.max_pool(2)
    b.flatten()
    for _ in range(2):
        b.linear(width(4096))
        b.relu()
        b.dropout()
    b.linear(n_classes)
    return b.net("VGG-16")


def squeezenet(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """SqueezeNet 1.1."""
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor)

    def block(c: int, kernel: int, at: int | None = None, stride: int = 1, padding: int = 0) -> int:
        b.conv(width(c), kernel, at, stride=stride, padding=padding)
        return b.relu()

    block(64, 3, stride=2)
    for squeezed in ((16, 16), (32, 32), (48, 48, 64, 64)):
        b.max_pool(3, stride=2, ceil_mode=True)
        for c in squeezed:
            at = block(c, 1)
            b.concat(block(4 * c, 1, at), block(4 * c, 3, at, padding=1))
    b.dropout()
    b.conv(n_classes, 1)
    b.relu()
    b.global_avg_pool()
    b.flatten()
    return b.net("SqueezeNet")


# outputs of 1x1, of 3x3 and its reduction, of 5x5 and its reduction, of the pool's projection; None: a max pool
INCEPTIONS = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None,
    (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), None,
    (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip


def googlenet(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """GoogLeNet with the paper's kernels, a BatchNorm after every convolution in place of the local response
    normalisation.
    """
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor)

    def block(c: int, kernel: int, at: int | None = None, stride: int = 1) -> int:
        b.conv(width(c), kernel, at, stride=stride, padding=kernel // 2, bias=False)
        b.batch_norm()
        return b.relu()

    block(64, 7, stride=2)
    b.max_pool(3, stride=2, ceil_mode=True)
    block(64, 1)
    block(192, 3)
    b.max_pool(3, stride=2, ceil_mode=True)
    for widths in INCEPTIONS:
        if widths is None:
            b.max_pool(3, stride=2, ceil_mode=True)
            continue
        c1, c3_reduced, c3, c5_reduced, c5, c_pool = widths
        at = b.last
        branches = (
            block(c1, 1, at),
            block(c3, 3, block(c3_reduced, 1, at)),
            block(c5, 5, block(c5_reduced, 1, at)),
            block(c_pool, 1, b.max_pool(3, at, stride=1, padding=1, ceil_mode=True)),
        )
        b.concat(*branches)
    b.global_avg_pool()
    b.flatten()
    b.dropout()
    b.linear(n_classes)
    return b.net("GoogLeNet")
