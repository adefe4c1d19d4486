"""Time, multiply-adds and bytes of every step."""

from __future__ import annotations

from dataclasses import dataclass

from ..show import preformatted
from .plan import Plan
from .steps import Step
from .text import step_bytes


@dataclass(frozen=True)
class Timing:
    """One step: seconds, multiply-adds, the bytes that it must move at least, and which body ran it where an executor
    has several.
    """

    number: int
    entries: tuple[int, ...]
    operation: str
    seconds: float
    macs: int
    nbytes: int
    body: str = ""

    @classmethod
    def of(cls, plan: Plan, number: int, step: Step, seconds: float, body: str = "") -> Timing:
        return cls(number, step.entries, step.op.lower(), seconds, step.macs, step_bytes(step, plan.n, plan.t), body)


@dataclass(frozen=True)
class Profile:
    """All steps of one pass; prints as a table."""

    timings: list[Timing]

    @property
    def seconds(self) -> float:
        return sum(t.seconds for t in self.timings)

    def __repr__(self) -> str:
        return f"Profile({len(self.timings)} steps, {1e3 * self.seconds:.2f} ms)"

    def _repr_html_(self) -> str:
        return preformatted(str(self))

    def __str__(self) -> str:
        lines = [f"{'step':>4}  {'entries':<12}  {'operation':<14}  {'ms':>8}  {'GFLOP/s':>8}  {'GB/s':>6}  body"]
        for t in self.timings:
            entries = "+".join(map(str, t.entries)) or "-"
            rate = f"{2e-9 * t.macs / t.seconds:8.1f}" if t.macs else " " * 8
            bandwidth = 1e-9 * t.nbytes / t.seconds if t.seconds else 0  # done by another step's launch
            lines.append(
                f"{t.number:4}  {entries:<12}  {t.operation:<14}  {1e3 * t.seconds:8.3f}  {rate}  "
                f"{bandwidth:6.1f}  {t.body}".rstrip()
            )
        macs = sum(t.macs for t in self.timings)
        lines.append(f"all steps: {1e3 * self.seconds:.2f} ms, {2e-9 * macs / self.seconds:.1f} GFLOP/s")
        return "\n".join(lines)
