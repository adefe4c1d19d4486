"""Dense layers of awkward sizes by name, which the kernels of every device are tested on.

Sizes and kernels are along (d, h, w); stride, dilation and padding (before, after) hold for every axis longer than 1.
"""

from __future__ import annotations

from typing import Any

# the first ones where rows are no multiple of 16 bytes
LAYERS: dict[str, dict[str, Any]] = {
    "pixels 1x1": dict(c_in=7, c_out=33, x_size=(1, 3, 5), kernel=(1, 1, 1)),
    "image": dict(c_in=3, c_out=17, x_size=(1, 7, 6), kernel=(1, 3, 3), stride=2, before=1, after=1),
    "grouped": dict(c_in=6, c_out=10, x_size=(1, 5, 4), kernel=(1, 2, 3), before=1, after=0, groups=2),
    "padded": dict(c_in=8, c_out=12, x_size=(1, 5, 6), kernel=(1, 3, 3), before=1, after=1),
    "strided": dict(c_in=20, c_out=36, x_size=(1, 8, 7), kernel=(1, 3, 3), stride=2, before=1, after=1),
    "skipping": dict(
        c_in=36, c_out=8, x_size=(1, 6, 5), kernel=(1, 1, 1), stride=2
    ),  # its scatter has phases without taps
    "dilated": dict(c_in=12, c_out=20, x_size=(1, 1, 9), kernel=(1, 1, 3), dilation=2, before=2, after=2),
    "volume": dict(c_in=4, c_out=8, x_size=(3, 4, 3), kernel=(2, 2, 2), before=1, after=0),
    "aligned groups": dict(c_in=24, c_out=48, x_size=(1, 3, 4), kernel=(1, 2, 2), after=1, groups=3),
    "even": dict(c_in=64, c_out=64, x_size=(1, 4, 3), kernel=(1, 3, 3), stride=2, before=1, after=1),
    "even groups": dict(
        c_in=128, c_out=80, x_size=(1, 1, 3), kernel=(1, 1, 2), groups=2
    ),  # 40 channels of a tile of 32
    "even back": dict(c_in=40, c_out=64, x_size=(1, 1, 3), kernel=(1, 1, 1)),
    "even to an image": dict(c_in=3, c_out=64, x_size=(1, 3, 4), kernel=(1, 2, 2), after=1),
    "transposed": dict(
        c_in=8, c_out=16, x_size=(1, 3, 4), kernel=(1, 3, 3), stride=2, before=1, after=0, transposed=True
    ),
}
