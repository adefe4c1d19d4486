"""Which of a model's outputs is explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError, ModelError


def chosen(names: Sequence[str], output: int | str | None, what: str) -> str:
    """One of the outputs by its name or number; without either there must be one only.

    Raises
    ------
    ModelError
        Where there are several and none is named.
    InputError
        Where there is none of that name or number.
    """
    listed = ", ".join(f"{number} ({name!r})" for number, name in enumerate(names))
    if output is None:
        if len(names) != 1:
            raise ModelError(
                f"{what} returns {len(names)} tensors: {listed}; choose one, for example output={names[0]!r} or "
                "output=0; a tool without this option needs a model that returns one"
            )
        return names[0]
    if isinstance(output, str) and output in names:
        return output
    if isinstance(output, int) and not isinstance(output, bool) and 0 <= output < len(names):
        return names[output]
    raise InputError(f"output is {output!r}; {what} returns {listed if any(names) else 'one tensor, number 0'}")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that a model returns, by name: keys, fields and positions, joined by dots."""
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = vars(value).items()
    elif isinstance(value, (tuple, list)):
        items = zip(value._fields, value, strict=True) if hasattr(value, "_fields") else enumerate(value)
    else:
        yield path, value
        return
    for key, inner in items:
        yield from leaves(inner, f"{path}.{key}" if path else str(key))
