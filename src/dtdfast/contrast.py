"""Why this output and not another one: starts of relevance that set one output against others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.checks import host_array
from .errors import TargetError

Floats = NDArray[np.floating[Any]]
Numbers = NDArray[np.int64]

REST, SOFTMAX = "rest", "softmax"


@dataclass(frozen=True, eq=False)
class Contrast:
    """A target that sets one output against others: why this class, and not that one.

    A z⁺ map shows what the network looked at, and hardly depends on the class. Relevance is linear in its start, so a
    start of both signs gives the difference of two maps, without their common part. Positive relevance then speaks for
    the target, and negative relevance for what it is compared with.

    Parameters
    ----------
    target : int, array_like of int or None, default None
        The output that is explained, as in `explain`; by default the largest one of each sample.
    against : int, array_like of int, "rest" or "softmax", default "rest"
        What it is set against.

        - An int, or integers of shape (n,): this output b. The start is f_a at the target a, and −f_b at b.
        - "rest": all other outputs. The start is f_a at a, and −f_a/(C − 1) at each of the C − 1 others (CLRP [1]_).
        - "softmax": all other outputs by their probabilities p. The start is p_a (1 − p_a) at a, and −p_a p_j at every
          other j (SGLRP [2]_).

    References
    ----------
    .. [1] Gu et al., "Understanding individual decisions of CNNs via contrastive backpropagation", arXiv:1812.02100.
    .. [2] Iwana et al., "Explaining convolutional neural networks using softmax gradient layer-wise relevance
       propagation", arXiv:1908.04351.

    Examples
    --------
    >>> relevance = dtdfast.explain(layers, x, dtdfast.Contrast(281, against=285))
    """

    target: Any = None
    against: Any = REST

    @property
    def common(self) -> bool:
        """Whether it is the same for all samples."""
        return all(v is None or isinstance(v, (int, np.integer, str)) for v in (self.target, self.against))


def checked(against: Any, n: int, classes: int) -> Numbers | str:
    """What outputs are set against: a word, or one output of each of n samples, (n, 1)."""
    if isinstance(against, str):
        if against not in (REST, SOFTMAX):
            raise TargetError(f'against is {against!r:.40}, expected integers, "{REST}" or "{SOFTMAX}"')
        return against
    array = host_array(against, "against", TargetError)
    if array.dtype.kind not in "iu" or array.shape not in ((), (n,)):
        raise TargetError(f'against is {against!r:.60}, expected one integer, one for each of {n} samples, or "{REST}"')
    if array.size and not (array.min() >= 0 and array.max() < classes):
        raise TargetError(f"against goes from {array.min()} to {array.max()}, but there are outputs 0 to {classes - 1}")
    return np.full((n, 1), array.reshape(-1, 1), np.int64)


def start_of(outputs: Floats, numbers: Numbers, against: Numbers | str, *, unit: bool) -> Floats:
    """Start relevance (n, t, C) for outputs (n, C) and targets (n, t); `unit`: that of the gradient of f_a − f_b."""
    n, classes = outputs.shape
    start = np.zeros((n, numbers.shape[1], classes), outputs.dtype)
    if isinstance(against, str) and classes == 1:
        raise TargetError("the network has one output: there is nothing to set it against")
    if isinstance(against, str) and against == SOFTMAX:
        with np.errstate(under="ignore"):
            shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            p = shifted / shifted.sum(axis=1, keepdims=True)
            chosen = np.take_along_axis(p, numbers, axis=1)
            start[...] = -chosen[:, :, None] * p[:, None]
        np.put_along_axis(start, numbers[:, :, None], 0, axis=2)
        others = -start.sum(axis=2, keepdims=True)  # p_a (1 − p_a), whose difference has no digits left where p_a ≈ 1
        np.put_along_axis(start, numbers[:, :, None], others, axis=2)
        return start
    values = np.ones(numbers.shape, outputs.dtype) if unit else np.take_along_axis(outputs, numbers, axis=1)
    if isinstance(against, str):
        start[...] = (-values / (classes - 1))[:, :, None]
    else:
        same = np.flatnonzero((numbers == against).any(axis=1))
        if same.size:
            raise TargetError(
                f"sample {same[0]}: output {against[same[0], 0]} is set against itself; name another one as against"
            )
        other = np.ones(against.shape, outputs.dtype) if unit else np.take_along_axis(outputs, against, axis=1)
        np.put_along_axis(start, np.broadcast_to(against, numbers.shape)[:, :, None], -other[:, :, None], axis=2)
    np.put_along_axis(start, numbers[:, :, None], values[:, :, None], axis=2)
    return start
