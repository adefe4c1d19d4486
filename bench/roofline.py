"""Every step of a network against the machine's roofs, as a picture: python bench/roofline.py OUT.png [NETWORK ...]."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import dtdfast as dtd
import machine
import nets
from ours import Z_PLUS

PRODUCTS = 6  # of bfloat16 parts, for one of float32 on matrix units
NETWORKS = ("vgg16", "resnet50", "googlenet", "mobilenet_v2")


def main() -> None:
    out, *names = sys.argv[1:]
    peak = machine.measure()
    figure, axes = plt.subplots(figsize=(9, 6))
    intensity = np.logspace(-2, 3, 200)
    roofs = {"float32 multiply-adds": (peak.gflops, "-")}
    if peak.tile_gflops:
        roofs |= {
            "float32 on matrix units": (peak.tile_gflops / PRODUCTS, "--"),
            "bfloat16 on matrix units": (peak.tile_gflops, ":"),
        }
    for label, (gflops, line) in roofs.items():
        axes.plot(intensity, np.minimum(gflops, intensity * peak.copy_gb_per_s), line, color="black", label=label)
    print(f"{peak.threads} threads, copies at {peak.copy_gb_per_s:.0f} GB/s")
    print("\n".join(f"{label}: {gflops:.0f} GFLOP/s" for label, (gflops, _) in roofs.items()))
    print("Shares and roofs below are of float32 multiply-adds: matrix units, and zeros left out, can pass 100 %.")
    print(f"{'one image':14} {'ms':>8} {'GFLOP/s':>8} {'of peak':>8} {'at the roof':>12}")
    for name in names or NETWORKS:
        net = getattr(nets, name)()
        profile = dtd.Explainer(net.layers, **Z_PLUS, backend="cpu").profile(net.sample(1, box=(0.0, 1.0)))
        steps = [t for t in profile.timings if t.macs]
        flops, nbytes, seconds = (
            np.array([getattr(t, key) for t in steps], float) for key in ("macs", "nbytes", "seconds")
        )
        flops *= 2
        sizes = 400 * seconds / seconds.sum()
        axes.scatter(flops / nbytes, flops / seconds / 1e9, s=np.maximum(sizes, 4), alpha=0.6, label=net.name)
        at_roof = sum(max(2 * t.macs / peak.gflops, t.nbytes / peak.copy_gb_per_s) / 1e9 for t in profile.timings)
        rate = flops.sum() / profile.seconds / 1e9
        print(
            f"{net.name:14} {1e3 * profile.seconds:8.1f} {rate:8.0f} {rate / peak.gflops:8.0%} "
            f"{at_roof / profile.seconds:12.0%}"
        )
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds × 2 / bytes", ylabel="GFLOP/s, zeros counted")
    axes.legend()
    axes.set_title("Steps of one explanation (area: share of the time); above every roof: zeros left out")
    figure.savefig(out, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
