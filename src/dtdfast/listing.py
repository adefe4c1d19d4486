"""What a list of layers holds, as a table: a plain list cannot show itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError, ShapeError, at
from .layers import INPUT, Layer
from .options import whole_numbers
from .plan.shapes import Shape
from .plan.units import output_shape
from .plan.wiring import sources
from .show import aligned, tabulated

TRAINED = ("weight", "bias", "scale", "shift")
HEADER = ("position", "record", "name", "reads", "output", "parameters")


@dataclass(frozen=True)
class Summary:
    """What a list of layers holds: `print` shows it as a table, and so does a notebook.

    Attributes
    ----------
    entries : list of dict
        What the table's columns are called, and what they hold: the position, the record's class, its name or None, the
        positions that it reads (-1 is the input), the shape of a sample of its output or None, the number of trained
        parameters.
    reading : str
        The size of the whole, in one line.
    """

    entries: list[dict[str, Any]]
    reading: str

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells below the header."""
        return [
            (
                str(e["position"]),
                e["record"],
                e["name"] or "",
                " ".join("input" if s == INPUT else str(s) for s in e["reads"]),
                _written(e["output"]),
                f"{e['parameters']:,}" if e["parameters"] else "",
            )
            for e in self.entries
        ]

    def __str__(self) -> str:
        return "\n".join([*aligned([HEADER, *self.rows]), self.reading])

    def __repr__(self) -> str:
        return f"<Summary: {self.reading}>"

    def _repr_html_(self) -> str:
        return tabulated(HEADER, self.rows, self.reading)


def summary(layers: Sequence[Layer], shape: Shape | None = None) -> Summary:
    """Say what a list of layers holds: every record, what it reads, and the number of its parameters.

    Parameters
    ----------
    layers : list of Layer
        The network.
    shape : tuple of int, optional
        The shape of one sample of its input, without the batch axis; with it, every output's shape is shown.

    Returns
    -------
    Summary
        The table; `print` it, or let a notebook show it.

    Raises
    ------
    InputError
        The shape is not one of positive integers.
    LayerError
        The layers are no list of records.
    WiringError
        A record reads an entry that does not come before it.
    ShapeError
        A record cannot take an input of that shape.

    Examples
    --------
    >>> import numpy as np
    >>> import dtdfast as dtd
    >>> print(dtd.summary([dtd.Linear(np.ones((3, 4))), dtd.ReLU()], (4,)))
    position  record  name  reads  output  parameters
    0         Linear        input  (n, 3)  12
    1         ReLU          0      (n, 3)
    input (n, 4), 2 layers, 12 parameters
    """
    entries: list[dict[str, Any]] = []
    sample = None if shape is None else tuple(whole_numbers("shape", shape))
    if sample is not None and min(sample, default=1) < 1:
        raise InputError(f"shape is {sample}, expected the sizes of one sample, at least 1 each")
    shapes: dict[int, Shape | None] = {INPUT: sample}
    for position, (record, reads) in enumerate(zip(layers, sources(layers), strict=True)):
        shapes[position] = _output(position, record, [shapes[r] for r in reads])
        count = sum(np.size(a) for key in TRAINED if (a := getattr(record, key, None)) is not None)
        cells = position, type(record).__name__, record.name, reads, shapes[position], count
        entries.append(dict(zip(HEADER, cells, strict=True)))
    total = sum(e["parameters"] for e in entries)
    return Summary(entries, f"input {_written(shapes[INPUT])}, {len(layers)} layers, {total:,} parameters")


def _output(position: int, record: Layer, operands: Sequence[Shape | None]) -> Shape | None:
    """The shape of one sample of an entry's output, where those of its operands are known."""
    known = [s for s in operands if s is not None]
    if len(known) != len(operands):
        return None
    try:
        return output_shape(record, *known)
    except ShapeError as error:
        raise ShapeError(f"{at(position, record)}: {error}") from None


def _written(shape: Shape | None) -> str:
    return "?" if shape is None else "(n, " + ", ".join(map(str, shape)) + ")"
