"""The errors of dtdfast: every one is a DtdError and is raised before any work is done."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, TypeVar

Call = TypeVar("Call", bound=Callable[..., Any])


class DtdError(Exception):
    """Base class of everything that dtdfast raises on purpose."""


class LayerError(DtdError, ValueError):
    """A record, or its place in the network, cannot be explained or is malformed."""


class WiringError(LayerError):
    """`inputs=` names an entry that does not exist, comes later, or is not an integer."""


class ShapeError(LayerError):
    """An array's shape does not fit the layer that receives it."""


class RuleError(DtdError, ValueError):
    """A rule, preset or convention is unknown, or is given to an entry that takes none."""


class TargetError(DtdError, ValueError):
    """`target` does not select outputs of the network."""


class DomainError(DtdError, ValueError):
    """`domain` is malformed, or the input lies outside it."""


class InputError(DtdError, ValueError):
    """The input array has a wrong type or holds NaN or infinity."""


class NumericsError(DtdError, ArithmeticError):
    """A finite input led to values that the working precision cannot represent."""


class BackendError(DtdError, RuntimeError):
    """A backend, precision or optional package is not available here; the message says why."""


class MemoryBudgetError(DtdError, MemoryError):
    """Something needs more memory than the budget (`DTDFAST_MEMORY`, else half of what there is); the message names
    it.
    """


class StorageError(DtdError, ValueError):
    """A saved layer list is corrupt, too large, or not one of ours; or a file of somebody else's would have to be
    replaced.
    """


class ModelError(DtdError, ValueError):
    """A model of another format is corrupt, or holds something that cannot be turned into layers."""


class RunError(DtdError, RuntimeError):
    """A data-set run cannot begin or go on, or stopped before its end; the message says how to continue it."""


def at(position: int | None, record: object) -> str:
    """How messages name an entry: ``layer 7 (Conv 'stem')``."""
    name = getattr(record, "name", None)
    kind = type(record).__name__ + (f" {name!r}" if name else "")
    return kind if position is None else f"layer {position} ({kind})"


PASSING = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN,  # another process writes, or a file server is away
)  # fmt: skip


def starved(error: BaseException) -> bool:
    """Whether this process had too little memory, file handles or threads, or a file was not to be had for a while:
    that says nothing of what it read.
    """
    handles = isinstance(error, OSError) and error.errno in PASSING
    threads = isinstance(error, RuntimeError) and "can't start new thread" in str(error)  # as Python says it
    return handles or threads or (isinstance(error, MemoryError) and not isinstance(error, DtdError))


def translated(call: Call) -> Call:
    """A function whose MemoryError and RecursionError become errors of dtdfast that say what to do."""

    @functools.wraps(call)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except DtdError:
            raise
        except MemoryError as error:
            raise MemoryBudgetError(
                f"the system gives no more memory ({error}); use a smaller batch_size, or smaller samples"
            ) from None
        except RecursionError:
            raise LayerError(
                "the network nests more moves (Flatten, Slice, Concat) in each other than can be followed, or the call "
                "itself stands deep in others"
            ) from None

    return checked  # type: ignore[return-value]
