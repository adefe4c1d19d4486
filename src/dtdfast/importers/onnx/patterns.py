"""GELU as exporters write it out, x/2·(1 + erf(x/√2)), put back together before the walk: the error function has no
record.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .tensors import Proto

NEAR = 1e-5  # relative: constants are float32, perhaps rounded by an exporter


def gelus(nodes: list[Proto], number: Callable[[str], float | None]) -> dict[str, str]:
    """The output of every GELU written out in these nodes, and what it reads.

    Parameters
    ----------
    number : the one number behind a name, None where it is computed or more
    """
    if not any(node.op_type == "Erf" for node in nodes):
        return {}
    reader = _Products(nodes, number)
    products = [node for node in nodes if node.op_type == "Mul" and len(node.input) == 2 and len(node.output) == 1]
    found = ((node.output[0], reader.gelu(list(node.input))) for node in products)
    return {output: source for output, source in found if source is not None}


class _Products:
    """Products and sums as their factors and terms."""

    def __init__(self, nodes: list[Proto], number: Callable[[str], float | None]) -> None:
        self._number = number
        self._maker = {name: node for node in nodes for name in node.output if name}

    def gelu(self, names: list[str]) -> str | None:
        """x where these factors, products among them taken apart, are x, ½ and 1 + erf(x/√2)."""
        factors, number = self._factors(names)
        for i, factor in enumerate(factors):
            source = self._one_plus_erf(factor)
            if (
                source is not None
                and factors[:i] + factors[i + 1 :] == [source]
                and math.isclose(number, 0.5, rel_tol=NEAR)
            ):
                return source
        return None

    def _factors(self, names: list[str]) -> tuple[list[str], float]:
        """The computed factors of a product of at most two levels, and the product of the numbers in it."""
        computed, number = [], 1.0
        for name in names:
            value, inner = self._number(name), self._maker.get(name)
            if value is not None:
                number *= value
            elif inner is not None and inner.op_type in ("Mul", "Div") and len(inner.input) == 2 and self._plain(inner):
                for i, operand in enumerate(inner.input):
                    scale = self._number(operand)
                    if scale is None:
                        computed.append(operand)
                    else:
                        number *= 1 / scale if i and inner.op_type == "Div" else scale
            else:
                computed.append(name)
        return computed, number

    def _plain(self, node: Proto) -> bool:
        """A product, or a quotient by a number other than 0."""
        return node.op_type == "Mul" or bool(self._number(node.input[1]))

    def _one_plus_erf(self, name: str) -> str | None:
        """x where this is 1 + erf(x/√2)."""
        plus = self._maker.get(name)
        if plus is None or plus.op_type != "Add" or len(plus.input) != 2:
            return None
        computed = [n for n in plus.input if self._number(n) != 1.0]
        erf = self._maker.get(computed[0]) if len(computed) == 1 else None
        if erf is None or erf.op_type != "Erf" or len(erf.input) != 1:
            return None
        factors, number = self._factors([erf.input[0]])
        return factors[0] if len(factors) == 1 and math.isclose(number, math.sqrt(0.5), rel_tol=NEAR) else None
