"""Adds, dense concatenation, depthwise and grouped convolutions, gates, shuffles."""

from __future__ import annotations

from .builder import Bias, Builder, Net, channels

BRANCH_GAIN = (
    0.4  # of a residual branch's last BatchNorm: the sum's variance grows by a sixth per block instead of doubling
)


def resnet50(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    return _bottlenecks(
        "ResNet-50", ((64, 3), (128, 4), (256, 6), (512, 3)), 1, 1, size, divisor, n_classes, seed, bias
    )


def resnext(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """The first two stages of ResNeXt-50 32x4d, two blocks each: grouped 3x3 convolutions twice as wide."""
    return _bottlenecks("ResNeXt", ((64, 2), (128, 2)), 32 // divisor, 2, size, divisor, n_classes, seed, bias)


def _bottlenecks(
    name: str, stages: tuple[tuple[int, int], ...], groups: int, widening: int, size: int, divisor: int, n_classes: int,
    seed: int | None, bias: Bias,
) -> Net:  # fmt: skip
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor)

    def normed(c: int, kernel: int, at: int | None = None, stride: int = 1, groups: int = 1, gain: float = 1.0) -> int:
        b.conv(c, kernel, at, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        return b.batch_norm(gain=gain)

    normed(width(64), 7, stride=2)
    b.relu()
    b.max_pool(3, stride=2, padding=1)
    for stage, (c, blocks) in enumerate(stages):
        c_mid, c_out = width(c) * widening, 4 * width(c)
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            at = b.last
            normed(c_mid, 1, at)
            b.relu()
            normed(c_mid, 3, stride=stride, groups=groups)
            b.relu()
            branch = normed(c_out, 1, gain=BRANCH_GAIN)
            shortcut = at if block else normed(c_out, 1, at, stride=stride)
            b.add(branch, shortcut)
            b.relu()
    b.global_avg_pool()
    b.flatten()
    b.linear(n_classes)
    return b.net(name)


def densenet121(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, blocks: tuple[int, ...] = (6, 12, 24, 16), *,
    seed: int | None = 0, bias: Bias = "random",
) -> Net:  # fmt: skip
    """DenseNet-121: BatchNorms that read a Concat, so that most cannot fold."""
    b = Builder((3, size, size), seed, bias)
    growth = 32 // divisor
    b.conv(2 * growth, 7, stride=2, padding=3, bias=False)
    b.batch_norm()
    b.relu()
    b.max_pool(3, stride=2, padding=1)
    for stage, layers in enumerate(blocks):
        features = b.last
        for _ in range(layers):
            b.batch_norm(features)
            b.relu()
            b.conv(4 * growth, 1, bias=False)
            b.batch_norm()
            b.relu()
            new = b.conv(growth, 3, padding=1, bias=False)
            features = b.concat(features, new)
        b.batch_norm()
        b.relu()
        if stage < len(blocks) - 1:
            b.conv(b.shape()[0] // 2, 1, bias=False)
            b.avg_pool(2)
    b.global_avg_pool()
    b.flatten()
    b.linear(n_classes)
    return b.net("DenseNet-121")


def mobilenet_v2(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """MobileNetV2: inverted residuals with depthwise convolutions, ReLU6 and linear bottlenecks (activations of any
    sign).
    """
    b = Builder((3, size, size), seed, bias)
    width = channels(divisor, 2)

    def normed(c: int, kernel: int, stride: int = 1, groups: int = 1, gain: float = 1.0) -> int:
        b.conv(c, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        return b.batch_norm(gain=gain)

    normed(width(32), 3, stride=2)
    b.activation("clip")
    for expansion, c, blocks, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            at = b.last
            c_mid = expansion * b.shape()[0]
            if expansion > 1:
                normed(c_mid, 1)
                b.activation("clip")
            normed(c_mid, 3, stride=1 if block else stride, groups=c_mid)
            b.activation("clip")
            branch = normed(width(c), 1, gain=BRANCH_GAIN if block else 1.0)
            if block:
                b.add(branch, at)
    normed(width(1280), 1)
    b.activation("clip")
    b.global_avg_pool()
    b.flatten()
    b.dropout()
    b.linear(n_classes)
    return b.net("MobileNetV2")


def squeeze_excite(
    size: int = 32, divisor: int = 1, n_classes: int = 10, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """Two residual blocks whose branch is scaled per channel by a sigmoid gate."""
    b = Builder((3, size, size), seed, bias)
    c = channels(divisor, 4)(64)
    b.conv(c, 3, padding=1)
    b.relu()
    for _ in range(2):
        at = b.last
        b.conv(c, 3, at, padding=1, bias=False)
        signal = b.batch_norm()
        b.global_avg_pool(signal)
        b.conv(c // 4, 1)
        b.relu()
        b.conv(c, 1)
        gate = b.activation("sigmoid")
        b.add(b.gate(signal, gate), at)
        b.relu()
    b.global_avg_pool()
    b.flatten()
    b.linear(n_classes)
    return b.net("SE block")


def shufflenet(
    size: int = 32, divisor: int = 1, n_classes: int = 10, *, seed: int | None = 0, bias: Bias = "random"
) -> Net:
    """ShuffleNetV2-like units: a channel split, one half through a branch, a concat, and a shuffle by Reshape and
    Permute.
    """
    b = Builder((3, size, size), seed, bias)
    c = channels(divisor, 4)(64)

    def normed(kernel: int, at: int | None = None, groups: int = 1) -> int:
        b.conv(c // 2, kernel, at, padding=kernel // 2, groups=groups, bias=False)
        return b.batch_norm()

    b.conv(c, 3, stride=2, padding=1)
    b.relu()
    for _ in range(2):
        at = b.last
        kept = b.slice_channels(0, c // 2, at)
        normed(1, b.slice_channels(c // 2, c, at))
        b.relu()
        normed(3, groups=c // 2)
        normed(1)
        branch = b.relu()
        b.concat(kept, branch)
        _, h, w = b.shape()
        b.reshape(2, c // 2, h, w)
        b.permute(0, 2, 1, 3, 4)
        b.reshape(c, h, w)
    b.global_avg_pool()
    b.flatten()
    b.linear(n_classes)
    return b.net("ShuffleNet units")
