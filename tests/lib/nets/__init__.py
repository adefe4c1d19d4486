"""Networks with random weights as plain layer lists, shared by tests and benchmarks.

The published ones take an image size and a divisor of their widths, the deepest also how many layers a block has; at
their defaults they are the real thing.
"""

from collections.abc import Callable
from functools import partial

from .builder import Bias, Builder, Net, readers, wiring
from .classic import alexnet, googlenet, lenet5, squeezenet, vgg16
from .residual import densenet121, mobilenet_v2, resnet50, resnext, shufflenet, squeeze_excite
from .small import cnn, digits_mlp, mnist_mlp, text_cnn, unet, video_cnn
from .transformers import bert, gpt2, llama, talking_heads, vit

FULL: dict[str, Callable[..., Net]] = {  # as published, by the names that benchmarks print
    "VGG-16": vgg16,
    "ResNet-50": resnet50,
    "GoogLeNet": googlenet,
    "DenseNet-121": densenet121,
    "AlexNet": alexnet,
    "SqueezeNet": squeezenet,
    "MobileNetV2": mobilenet_v2,
}
SMALL: dict[str, Callable[..., Net]] = {  # quick enough for the float64 oracle; keywords seed and bias
    "digits_mlp": digits_mlp,
    "cnn": cnn,
    "lenet5": lenet5,
    "squeezenet": partial(squeezenet, 47, 4, 10),
    "alexnet": partial(alexnet, 67, 16, 10),
    "vgg16": partial(vgg16, 32, 8, 10),
    "googlenet": partial(googlenet, 64, 8, 10),
    "resnet50": partial(resnet50, 32, 8, 10),
    "resnext": partial(resnext, 32, 8, 10),
    "densenet121": partial(densenet121, 32, 8, 10, (2, 3, 4, 2)),
    "mobilenet_v2": partial(mobilenet_v2, 32, 8, 10),
    "squeeze_excite": partial(squeeze_excite, 12, 4),
    "shufflenet": partial(shufflenet, 16, 4),
    "unet": partial(unet, 16, 8),
    "video_cnn": partial(video_cnn, 8, 8),
    "text_cnn": partial(text_cnn, 12, 8),
    "vit": partial(vit, 24, 32, 10, 2, patch=8),
    "bert": partial(bert, 7, 32, 3, 2, n_words=50),
    "gpt2": partial(gpt2, 7, 32, 2, n_words=50),
    "llama": partial(llama, 6, 32, 2, n_words=50),
    "talking_heads": talking_heads,
}

__all__ = [
    "FULL", "SMALL", "Bias", "Builder", "Net", "alexnet", "bert", "cnn", "densenet121", "digits_mlp",
    "googlenet", "gpt2", "lenet5", "llama", "mnist_mlp", "mobilenet_v2", "readers", "resnet50", "resnext",
    "shufflenet", "squeeze_excite", "squeezenet", "talking_heads", "text_cnn", "unet", "vgg16", "video_cnn", "vit",
    "wiring",
]  # fmt: skip
