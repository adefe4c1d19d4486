"""What PyTorch writes out in several operators and a record holds in one."""

from __future__ import annotations

from typing import Any

from .torch_call import operation


def local_response_norm(node: Any) -> dict[str, Any] | None:
    """The arguments of F.local_response_norm where a node is its last: x / (k + alpha·mean of squares)^beta, written out by PyTorch."""
    chain = []
    for name in ("div", "pow", "add", "mul"):  # from the last operation down; each reads the one before as its last or only node
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
