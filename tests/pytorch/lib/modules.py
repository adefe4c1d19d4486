"""Networks as PyTorch modules with random weights, biases and BatchNorm statistics, none of them zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torch.nn import functional as F

from support import LONG

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
N_CLASSES = 10
EVEN = (tv.AlexNet, tv.DenseNet, tv.GoogLeNet, tv.Inception3, tv.ResNet, tv.VGG)


def blank(make: Callable[[], nn.Module]) -> nn.Module:
    """The module, thinned, without numbers: its own initialisation would only be overwritten."""
    with torch.device("meta"):
        return thinned(make()).to_empty(device="cpu")


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random biases and statistics in place, He-initialised weights where no BatchNorm follows to hold the scale."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, std: float) -> Tensor:
        return std * torch.randn(like.shape, generator=generator)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, NORMS):
                part.running_mean.copy_(normal(part.running_mean, 0.1))
                part.running_var.copy_(uniform(part.running_var, 0.5, 1.5))
                part.weight.copy_(uniform(part.weight, 0.7, 1.3))
            elif isinstance(getattr(part, "weight", None), nn.Parameter) and not isinstance(part, nn.Embedding):
                fan_in = part.weight[0].numel()
                part.weight.copy_(normal(part.weight, (2 / fan_in) ** 0.5))
            if isinstance(getattr(part, "bias", None), nn.Parameter):
                part.bias.copy_(normal(part.bias, 0.1))
    return module.eval().requires_grad_(False)


class UNet(nn.Module):
    """Two levels, one going up by a transposed convolution, the other by nearest-neighbour upsampling."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self.block(3, c), self.block(c, 2 * c), self.block(2 * c, 4 * c)
        self.rise = nn.ConvTranspose2d(4 * c, 2 * c, 2, stride=2)
        self.up2, self.up1, self.head = self.block(4 * c, 2 * c), self.block(3 * c, c), nn.Conv2d(c, 4, 1)

    @staticmethod
    def block(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        y = self.rise(self.bottom(F.max_pool2d(two, 2)))
        y = self.up2(torch.cat([two, y], 1))
        y = self.up1(torch.cat([one, F.interpolate(y, scale_factor=2, mode="nearest")], 1))
        return self.head(y)


class TextCNN(nn.Module):
    """Convolutions of several widths over word vectors, the largest answer of each."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 12, k, padding=k // 2) for k in (2, 3, 5))
        self.fc = nn.Linear(36, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words).transpose(1, 2)
        pooled = [F.relu(conv(x)).amax(2) for conv in self.convs]
        return self.fc(F.dropout(torch.cat(pooled, 1), 0.5, self.training))


class VideoCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d((1, 2, 2)))
        self.body = nn.Sequential(nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool3d(2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3, 4)))


def thinned(module: nn.Module) -> nn.Module:
    """The network with a quarter of the channels of its layers, but for those of images and classes; with
    DTDFAST_LONG=1 as it is. Other networks than these have numbers of channels that four does not divide.
    """
    if LONG or not isinstance(module, EVEN):
        return module

    def thin(n: int) -> int:
        return n if n in (1, 3, N_CLASSES) else n // 4

    for parent in list(module.modules()):
        for name, part in parent.named_children():
            if isinstance(part, nn.Conv2d):
                n_in, n_out, groups = map(thin, (part.in_channels, part.out_channels, part.groups))
                bias, geometry = part.bias is not None, (part.kernel_size, part.stride, part.padding, part.dilation)
                setattr(parent, name, nn.Conv2d(n_in, n_out, *geometry, groups, bias))
            elif isinstance(part, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(thin(part.num_features), part.eps))
            elif isinstance(part, nn.Linear):
                setattr(parent, name, nn.Linear(thin(part.in_features), thin(part.out_features)))
    return module


@dataclass(frozen=True)
class Case:
    """A network, the shape of a batch for it, and where relevance starts at a positive number (index into one sample's
    output).
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    n_words: int | None = None
    at: tuple[int, ...] = (3,)
    full: tuple[int, ...] = (1, 3, 224, 224)  # what times are measured on
    sibling: bool = False  # the operations of another case: ONNX files are tested in the long form alone
    keeps: bool = False  # numbers of its own: of word vectors, or what it computes with while it is made

    def module(self, thin: bool = False) -> nn.Module:
        torch.manual_seed(0)
        return randomise(blank(self.make) if thin and not self.keeps else self.make())

    def sample(self, full: bool = False) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        shape = self.full if full else self.shape
        if self.n_words:
            return torch.randint(self.n_words, shape, generator=generator)
        return torch.randn(shape, generator=generator)


def _images(
    make: Callable[..., nn.Module],
    size: int,
    *,
    n: int = 2,
    full: int = 224,
    sibling: bool = False,
    keeps: bool = False,
    **options: object,
) -> Case:
    make = partial(make, weights=None, num_classes=N_CLASSES, **options)
    return Case(make, (n, 3, size, size), full=(1, 3, full, full), sibling=sibling, keeps=keeps)


def _vgg(make: Callable[..., nn.Module], **options: bool) -> Case:
    """Its pool wants large images: one is enough, as AlexNet, of the same layers, gets two."""
    return _images(make, 224, n=1, init_weights=False, **options)


CASES = {
    "alexnet": _images(tv.alexnet, 224),
    "vgg11": _vgg(tv.vgg11, sibling=True),
    "vgg16": _vgg(tv.vgg16, sibling=True),
    "vgg16_bn": _vgg(tv.vgg16_bn),
    "resnet18": _images(tv.resnet18, 64),
    "resnet50": _images(tv.resnet50, 64, sibling=True),
    "resnet101": _images(tv.resnet101, 32, sibling=True),
    "resnext50": _images(tv.resnext50_32x4d, 64),
    "wide_resnet50": _images(tv.wide_resnet50_2, 32, sibling=True),
    "googlenet": _images(tv.googlenet, 64, init_weights=False, transform_input=True),
    "inception_v3": _images(tv.inception_v3, 80, full=299, init_weights=False, transform_input=True),
    "densenet121": _images(tv.densenet121, 64),
    "squeezenet1_0": _images(tv.squeezenet1_0, 64, sibling=True),
    "squeezenet1_1": _images(tv.squeezenet1_1, 64),
    "mobilenet_v2": _images(tv.mobilenet_v2, 64),
    "mobilenet_v3_small": _images(tv.mobilenet_v3_small, 64),
    "mnasnet1_0": _images(tv.mnasnet1_0, 64, sibling=True),
    "shufflenet_v2": _images(tv.shufflenet_v2_x1_0, 64),
    "efficientnet_b0": _images(tv.efficientnet_b0, 64),
    "regnet_y_400mf": _images(tv.regnet_y_400mf, 64, keeps=True),
    "unet": Case(UNet, (2, 3, 16, 24), at=(1, 7, 11)),
    "text_cnn": Case(TextCNN, (2, 20), n_words=50, full=(1, 200), keeps=True),
    "video_cnn": Case(VideoCNN, (2, 3, 4, 16, 16), full=(1, 3, 16, 112, 112)),
}
