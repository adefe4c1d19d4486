"""Every step of a network against the machine's roofs, as a picture: python bench/roofline.py OUT.png [NETWORK ...].

"of peak" and "at the roof" are shares of what float32 multiply-adds reach, "of matrix" of float32 as six products on matrix units.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import dtdfast as dtd
import machine
import nets

NETWORKS = ("vgg16", "resnet50", "googlenet", "mobilenet_v2")
PRODUCTS = (1, 3, 6)  # tile products for one: bfloat16; two parts; three parts, which keep all of float32


def main() -> None:
    out, *names = sys.argv[1:]
    peak = machine.measure()
    figure, axes = plt.subplots(figsize=(9, 6))
    intensity = np.logspace(-2, 3, 200)
    axes.plot(intensity, np.minimum(peak.gflops, intensity * peak.copy_gb_per_s), color="black", label="multiply-adds, copies")
    print(f"{peak.threads} threads: {peak.gflops:.0f} GFLOP/s, {peak.copy_gb_per_s:.0f} GB/s")
    matrix = peak.matrix_gflops / PRODUCTS[-1]
    if matrix:
        for products in PRODUCTS:
            roof = np.minimum(peak.matrix_gflops / products, intensity * peak.copy_gb_per_s)
            axes.plot(intensity, roof, color="black", linestyle=":", label=f"matrix units, {products} product{'s' * (products > 1)}")
        print(f"matrix units: {peak.matrix_gflops:.0f} GFLOP/s of bfloat16, {matrix:.0f} of float32 in {PRODUCTS[-1]} products")
    print(f"{'one image':14} {'ms':>8} {'GFLOP/s':>8} {'of peak':>8} {'at the roof':>12}" + f" {'of matrix':>10}" * bool(matrix))
    for name in names or NETWORKS:
        net = getattr(nets, name)()
        profile = dtd.Explainer(net.layers, domain="nonnegative", backend="cpu").profile(net.sample(1, box=(0.0, 1.0)))
        steps = [t for t in profile.timings if t.macs]
        flops, nbytes, seconds = (np.array([getattr(t, key) for t in steps], float) for key in ("macs", "nbytes", "seconds"))
        flops *= 2
        sizes = 400 * seconds / seconds.sum()
        axes.scatter(flops / nbytes, flops / seconds / 1e9, s=np.maximum(sizes, 4), alpha=0.6, label=net.name)
        at_roof = sum(max(2 * t.macs / peak.gflops, t.nbytes / peak.copy_gb_per_s) / 1e9 for t in profile.timings)
        rate = flops.sum() / profile.seconds / 1e9
        shares = f"{rate / peak.gflops:8.0%} {at_roof / profile.seconds:12.0%}" + (f" {rate / matrix:10.0%}" if matrix else "")
        print(f"{net.name:14} {1e3 * profile.seconds:8.1f} {rate:8.0f} {shares}")
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds × 2 / bytes", ylabel="GFLOP/s, zeros counted")
    axes.legend()
    axes.set_title("Steps of one explanation (area: share of the time); above the roof: zeros left out")
    figure.savefig(out, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
