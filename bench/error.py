"""How far the kernels are from the float64 oracle, and how well the maps add up, on networks of full size: python
bench/error.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import dtdfast as dtd
import nets
from ours import Z_PLUS


def main() -> None:
    print(
        f"{'z+, one image':28} {'sum |R - oracle| / sum |oracle|':>32} {'max |R - oracle| / max |oracle|':>32} "
        f"{'residual / f':>13}"
    )
    for build in (nets.vgg16, nets.resnet50, nets.googlenet, nets.mobilenet_v2):
        net = build(bias="nonpositive")
        x = net.sample(1, box=(0.0, 1.0))
        truth = dtd.explain(net.layers, x, 0, **Z_PLUS, backend="oracle")
        for precision in (p for p in dtd.backends()["cpu"].precisions if p != "float64"):
            fast = dtd.Explainer(net.layers, **Z_PLUS, backend="cpu", precision=precision)
            difference = np.abs(fast.explain(x, 0) - truth)
            ledger = fast.ledger(x, 0)
            residual = np.abs(ledger.residual / ledger.start).max()
            total, largest = difference.sum() / np.abs(truth).sum(), difference.max() / np.abs(truth).max()
            print(f"{net.name + ', ' + precision:28} {total:32.1e} {largest:32.1e} {residual:13.1e}", flush=True)


if __name__ == "__main__":
    main()
