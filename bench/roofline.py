"""Every step of a network against the machine's roofs.

    python bench/roofline.py OUT.png [NETWORK ...]           as a picture, of one image
    python bench/roofline.py --steps NETWORK IMAGES [...]    as a table: what each step could take at least

At least means: its multiply-adds at the measured peak, or its bytes at the rate of copies within the smallest cache
that they fit into, whichever takes longer. Where a batch goes in pieces, a thread each, the table is of one piece and
one thread.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import dtdfast as dtd
import machine
import nets
from ours import Z_PLUS

PRODUCTS = 6  # of bfloat16 parts, for one of float32 on matrix units
PROFILES = 3
NETWORKS = ("vgg16", "resnet50", "googlenet", "mobilenet_v2")


def main() -> None:
    if sys.argv[1] == "--steps":
        for name, n in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
            print("\n".join(table(name, int(n))), end="\n\n")
    else:
        picture(*sys.argv[1:])


def table(name: str, n: int) -> Iterator[str]:
    """Milliseconds of each step, what bounds it, and how near it is to that; then the sums by operation and body."""
    net = getattr(nets, name)()
    x = net.sample(n, box=(0.0, 1.0))
    options = Z_PLUS | {"backend": "cpu"}
    plan = dtd.Explainer(net.layers, **options, n_threads=machine.threads()).plan_for(x.shape)
    n_threads = 1 if plan.pieces > 1 else machine.threads()
    explainer, peak = dtd.Explainer(net.layers, **options, n_threads=n_threads), machine.measure(n_threads)
    profiles = [explainer.profile(x[: plan.n]) for _ in range(PROFILES)]
    peak = peak.best(machine.measure(n_threads))
    what = f"{plan.pieces} pieces of {plan.n}, of which one" if plan.pieces > 1 else f"{plan.n} at once"
    cached = ", ".join(f"{rate:.0f} of {size >> 10} KiB" for size, rate in peak.cached)
    yield f"{net.name}, {n} images ({what}) on {n_threads} threads: {peak.gflops:.0f} GFLOP/s, copies at"
    yield f"{cached}, {peak.copy_gb_per_s:.0f} GB/s of memory"
    heads = f"{'step':>4}  {'entries':<12} {'operation':<14} {'body':<14} {'ms':>7} {'10^6 macs':>9} {'MB':>6}"
    yield f"{heads}  {'at least':>8} by    share"
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for step, t in enumerate(profiles[0].timings):
        if t.operation == "clear_border":
            t = replace(t, nbytes=0)  # of the frame alone, which is little
        seconds = min(profile.timings[step].seconds for profile in profiles)
        by_macs, by_bytes = 2e-9 * t.macs / peak.gflops, 1e-9 * t.nbytes / peak.copies(t.nbytes)
        least, bound = max((by_macs, "macs"), (by_bytes, "bytes"))
        for key in (f"{t.operation} {t.body}", "all steps"):
            sums[key][0] += seconds
            sums[key][1] += least
        entries, size = "+".join(map(str, t.entries)), f"{1e-6 * t.macs:9.2f} {1e-6 * t.nbytes:6.2f}"
        yield (
            f"{step:4}  {entries:<12} {t.operation:<14} {t.body:<14} {1e3 * seconds:7.3f} {size}  {1e3 * least:8.3f} "
            f"{bound:<5} {least / seconds:5.0%}"
        )
    for key, (seconds, least) in sorted(sums.items(), key=lambda item: -item[1][0]):
        yield f"{key:<32} {1e3 * seconds:8.3f} ms, at least {1e3 * least:8.3f}, {least / seconds:5.0%}"


def picture(out: str, *names: str) -> None:
    import matplotlib.pyplot as plt

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
