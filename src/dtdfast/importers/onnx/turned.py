"""Values whose batch axis a Transpose has moved away from the front: no record holds one, but a later Transpose may
move it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ... import layers as L
from ..records import Refused, Turned, Value
from .graph import Node, Operand

SINGLE = {
    "Abs", "Cast", "Celu", "Clip", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Mish", "Neg", "Relu",
    "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
SEVERAL = {"Add", "Max", "Mean", "Min", "Mul", "Sub", "Sum"}


@dataclass(frozen=True)
class Straight:
    """A node that works element by element, as it is with the batch axis first, and how its result is turned back."""

    node: Node
    order: tuple[int, ...]

    def turned(self, result: object) -> Turned:
        assert isinstance(result, Value)
        return Turned(result, self.order)


def transposed(node: Node, order: tuple[int, ...]) -> Operand:
    """Axes of the node's operand in another order; nothing is added where none moves, or where the batch axis does not
    stay first.
    """
    x = node.operands[0]
    if isinstance(x, Turned):
        order, x = tuple(x.order[axis] for axis in order), x.value
    assert isinstance(x, Value)
    if order[0] != 0:
        return Turned(x, order)
    return x if order == tuple(range(len(order))) else node.add(L.Permute, x, order=order)


def straight(node: Node) -> Straight:
    """The node with what is behind its turned operands, which must all be turned alike."""
    turned = [a for a in node.operands if isinstance(a, Turned)]
    order, count = turned[0].order, len(node.operands)
    single = node.operator in SINGLE and isinstance(node.operands[0], Turned)
    several = node.operator in SEVERAL and len(turned) == count and all(a.order == order for a in turned)
    if not single and not several:
        raise Refused(f"its input has the batch axis at place {order.index(0)}; transpose it back before this operator")
    operands: list[Operand | None] = [a.value if isinstance(a, Turned) else a for a in node.operands]
    return Straight(replace(node, operands=operands), order)
