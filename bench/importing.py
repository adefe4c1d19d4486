"""What `import dtdfast` takes beyond `import numpy`, in fresh processes by turns.

python bench/importing.py        # and what the first explanation loads, the kernels included
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 25
CLOCK = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
CASES = {
    "numpy": "import numpy",
    "dtdfast": "import numpy, dtdfast",
    "dtdfast and all that explain loads on the CPU": "import numpy, dtdfast.cpu.executor; dtdfast.Explainer",
}


def seconds(code: str) -> float:
    done = subprocess.run([sys.executable, "-c", CLOCK.format(code)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, code in CASES.items():
            times[name].append(seconds(code))
    for name, taken in times.items():
        least, middle = (f(taken) - f(times["numpy"]) for f in (min, statistics.median))
        beyond = "" if name == "numpy" else f"; beyond numpy {least * 1e3:.1f} ms, {middle * 1e3:.1f} ms"
        print(
            f"{name}: minimum of {ROUNDS} {min(taken) * 1e3:.1f} ms, median {statistics.median(taken) * 1e3:.1f} "
            f"ms{beyond}"
        )


if __name__ == "__main__":
    main()
