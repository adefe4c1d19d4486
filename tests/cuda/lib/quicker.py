"""numba's compiler, a third quicker; what it makes is the same. For tests alone, as it reaches into numba."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType
from typing import Any

_ANSWERS: dict[Any, Any] = {}


@contextmanager
def quicker(function: Any, analysis: Any) -> Iterator[None]:
    """While nothing else compiles.

    Parameters
    ----------
    function : numba's type of functions. What an operator makes of its operands' types is asked thousands of times,
        and each time of dozens of templates: from here on once.
    analysis : numba's module. It finds out which variables live on by going through all blocks until nothing changes;
        they live where a later block reads them, so from the last block on that is soon.
    """
    asked, live_map = function.get_call_type, analysis.compute_live_map

    def get_call_type(self: Any, context: Any, args: Any, kws: Any) -> Any:
        if kws or not isinstance(self.typing_key, BuiltinFunctionType):
            return asked(self, context, args, kws)
        question = self, context, args
        if question not in _ANSWERS:
            _ANSWERS[question] = asked(self, context, args, kws)
        return _ANSWERS[question]

    function.get_call_type = get_call_type
    analysis.compute_live_map = lambda cfg, blocks, *given: live_map(cfg, dict(reversed(blocks.items())), *given)
    try:
        yield
    finally:
        function.get_call_type, analysis.compute_live_map = asked, live_map
