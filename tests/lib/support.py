"""Small networks, and comparison with NumPy, for tests of meaning rather than of arithmetic."""

import functools
import inspect
import os
import re
from itertools import product
from pathlib import Path

import numpy as np

import dtdfast as dtd
import explicit

DOCS = Path(__file__).parents[2] / "docs"
LONG = bool(os.environ.get("DTDFAST_LONG"))


def chosen(*lists, every=2):
    """Of all combinations those whose positions add up to a multiple of `every`, so that each value meets one in so
    many of another list; all with DTDFAST_LONG=1.
    """
    numbered = (zip(*pairs, strict=True) for pairs in product(*map(enumerate, lists)))
    return [values for places, values in numbered if LONG or sum(places) % every == 0]


def over(name, values):
    """A test for all these values of an argument, where pytest would take longer than the test for each. What fails has
    the value in a note.
    """
    known = [*values]

    def decorate(test):
        @functools.wraps(test)
        def each_of_them(**given):
            for value in known:
                try:
                    test(**given, **{name: value})
                except BaseException as error:
                    error.add_note(f"{name} is {value}")
                    raise

        wanted = inspect.signature(test)
        rest = [parameter for key, parameter in wanted.parameters.items() if key != name]
        each_of_them.__signature__ = wanted.replace(parameters=rest)
        return each_of_them

    return decorate


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def classifier(rng):
    return [
        dtd.Conv(normal(rng, 6, 3, 3, 3), normal(rng, 6), padding=1, name="stem"),
        dtd.ReLU(),
        dtd.MaxPool(2),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 5, 54), normal(rng, 5), name="head"),
    ]


def segmenter(rng):
    """Outputs (n, 4, 6, 6)."""
    return [dtd.Conv(normal(rng, 8, 3, 3, 3), padding=1), dtd.ReLU(), dtd.Conv(normal(rng, 4, 8, 1, 1))]


def close(a, b, backend):
    """Equal up to the rounding of small networks."""
    np.testing.assert_allclose(a, b, rtol=0, atol=(1e-12 if backend == "oracle" else 2e-5) * abs(np.asarray(b)).max())


def by_matrix(terms, start):
    return np.array([explicit.propagate(t, s.astype(np.float64).ravel())[0] for t, s in zip(terms, start, strict=True)])


def kinds(layers):
    """What a list is made of, in order: activations by their kind."""
    return " ".join(layer.kind if isinstance(layer, dtd.Activation) else type(layer).__name__ for layer in layers)


def run_page(name, command=None, kinds=("python",), **given):
    """Run the code of a page of docs, block after block, with the names that are given; what they are in the end.

    `command` runs a line of its shell blocks; without it they are left out. `kinds` are the fences of what is run.
    """
    blocks = re.findall(
        r"^```((?:python|sh)[ \w]*)\n(.*?)^```",
        (DOCS / name).read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    names = {"__name__": name, **given}
    for kind, block in blocks:
        if kind in kinds:
            exec(block, names)  # assertions in the block are the test
        elif kind == "sh" and command:
            for line in block.replace("\\\n", " ").splitlines():
                command(line)
    return names
