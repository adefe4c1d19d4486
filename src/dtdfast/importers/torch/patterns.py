"""What PyTorch writes out in several operators and a record holds in one."""

from __future__ import annotations

from typing import Any

from .call import operation


class Written(dict[str, Any]):
    """The arguments of an operator that a node is the last of, written out: `name` is that operator's."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        super().__init__(arguments)
        self.name = name


def written_out(node: Any) -> Written | None:
    """The operator that a node and some before it make together."""
    norm = local_response_norm(node)
    return _activation(node) or _rotary(node) if norm is None else Written("local_response_norm", norm)


def _args(node: Any, name: str) -> tuple[Any, ...]:
    """The arguments of a node that calls this operator; () where it does not."""
    return tuple(node.args) if operation(node) == name and not node.kwargs else ()


def _activation(node: Any) -> Written | None:
    """Softsign x/(|x| + 1), tanhshrink x − tanh x, and shrinks as a choice by |x|."""
    if (quotient := _args(node, "div")) and (total := _args(quotient[1], "add")) and len(total) == 2:
        for term, one in (total, total[::-1]):
            if not hasattr(one, "op") and one == 1 and _args(term, "abs") == (quotient[0],):
                return Written("softsign", {"self": quotient[0]})
    if (difference := _args(node, "sub")) and _args(difference[1], "tanh") == (difference[0],):
        return Written("tanhshrink", {"self": difference[0]})
    choice = _args(node, "where")
    if len(choice) != 3:
        return None
    condition, inside, outside = choice
    if (
        (small := _args(condition, "le"))
        and not hasattr(inside, "op")
        and inside == 0
        and _args(small[0], "abs") == (outside,)
    ):
        return Written("hardshrink", {"self": outside, "lambd": small[1]})
    if (large := _args(condition, "gt")) and (x := _args(large[0], "abs")) and (less := _args(inside, "sub")):
        signed = _args(less[1], "mul")
        if (
            less[0] is x[0]
            and signed
            and _args(signed[0], "sign") == x
            and signed[1] == large[1]
            and _args(outside, "mul") == (x[0], 0)
        ):
            return Written("softshrink", {"self": x[0], "lambd": large[1]})
    return None


def _rotary(node: Any) -> Written | None:
    """view_as_real(view_as_complex(x)·factor)."""
    if (product := _args(node, "view_as_real")) and (pair := _args(product[0], "mul")):
        for pairs, factor in (pair, pair[::-1]):
            if x := _args(pairs, "view_as_complex"):
                return Written("rotary", {"self": x[0], "factor": factor})
    return None


def local_response_norm(node: Any) -> dict[str, Any] | None:
    """The arguments of F.local_response_norm where a node is its last: x / (k + alpha·mean of squares)^beta, written
    out by PyTorch.
    """
    chain = []
    # from the last operation down; each reads the one before as its last or only node
    for name in ("div", "pow", "add", "mul"):
        if operation(node) != name:
            return None
        chain.append(node)
        node = node.args[1] if name == "div" else node.args[0]
    while operation(node) in ("view", "squeeze"):
        node = node.args[0]
    pool = node
    if operation(pool) not in ("avg_pool2d", "avg_pool3d") or operation(pool.args[0]) != "pad":
        return None
    node = pool.args[0].args[0]
    while operation(node) in ("view", "unsqueeze"):
        node = node.args[0]
    x = chain[0].args[0]
    if operation(node) != "mul" or node.args != (x, x) or max(pool.args[1][1:]) != 1:
        return None
    _, power, plus, times = chain
    return dict(self=x, size=pool.args[1][0], alpha=times.args[1], beta=power.args[1], k=plus.args[1])
