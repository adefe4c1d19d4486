"""Rerun every claim: python claims/run.py [--seeds 3].  Needs dtdfast[claims]; about three minutes on two cores.

Prints claim, source, expected, measured (mean ± standard error over the seeds) and verdict; exits with 1 where a claim
does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import attention  # noqa: F401  its claims are registered
import minmax  # noqa: F401  and its
from rows import CLAIMS, Claim


def verdict(claim: Claim, values: list[float]) -> bool:
    """Three standard errors and half a unit of the expected value's last digit, or a bound on every seed."""
    if claim.relation == "<=":
        return max(values) <= claim.expected
    if claim.relation == ">=":
        return min(values) >= claim.expected
    return (
        abs(float(np.mean(values)) - claim.expected)
        <= 3 * float(np.hypot(standard_error(values), own_error(claim, len(values)))) + claim.unit / 2
    )


def own_error(claim: Claim, n_seeds: int) -> float:
    """How far a single run, such as the expected value's, strays; 0 where it has no random draws of its own."""
    return (
        0.0 if claim.runs is None else float(np.std([v for seed in range(n_seeds) for v in claim.runs(seed)], ddof=1))
    )


def standard_error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="networks per claim (default 3)")
    parser.add_argument("--only", default="", help="claims whose text begins so, such as 6")
    arguments = parser.parse_args()
    begin, failed, done = time.perf_counter(), 0, 0
    sign = {"=": "", "<=": "≤ ", ">=": "≥ "}
    print("| claim | source | expected | measured | verdict |\n|---|---|---|---|---|")
    for claim in CLAIMS:
        if not claim.text.startswith(arguments.only):
            continue
        values = [claim.measure(seed) for seed in range(arguments.seeds)]
        holds = verdict(claim, values)
        failed, done = failed + (not holds), done + 1
        extreme = {"=": np.mean, "<=": np.max, ">=": np.min}[claim.relation](values)
        measured = f"{extreme:.3g}" if claim.relation != "=" else f"{extreme:.4g} ± {standard_error(values):.2g}"
        expected = sign[claim.relation] + f"{claim.expected:g}"
        print(
            f"| {claim.text} | {claim.source} | {expected} | {measured} | {'holds' if holds else 'DOES NOT HOLD'} |",
            flush=True,
        )
    print(f"\n{failed} of {done} claims do not hold; {arguments.seeds} seeds, {time.perf_counter() - begin:.0f} s")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
