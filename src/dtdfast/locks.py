"""Locks that a forked child finds free, whatever the parent's other threads did when it forked; and properties that are
kept without a lock.

Locks let the thread that holds them in again: a signal's handler, or an object that is collected, may explain while it
does. What such a thread finds may be half changed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

_owners: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def renewed(owner: Any, name: str) -> Any:
    """A new lock for `owner`, replaced by a new one in every forked child.

    A fork copies a lock as it is; the thread that holds it is not copied, so nobody in the child would ever release it.

    Parameters
    ----------
    owner : object (or module) that keeps the lock as its attribute `name`, and looks it up there each time
    """
    _owners[owner] = name
    return threading.RLock()


SHARED = renewed(sys.modules[__name__], "SHARED")
"""Held while settings that all threads share are changed for a while, and while PyTorch exports: it does so on one
thread at a time."""


if TYPE_CHECKING:
    from functools import cached_property as cached_property  # noqa: TID251
else:

    class cached_property:
        """A property that is computed when it is first asked for.

        That of functools holds a lock meanwhile, before Python 3.12: one for all instances, for which a forked child
        would wait for ever.
        """

        def __init__(self, compute: Callable[[Any], Any]) -> None:
            self.compute, self.__doc__ = compute, compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self.name] = self.compute(instance)
            return value


def _renew() -> None:
    for owner, name in list(_owners.items()):
        setattr(owner, name, threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
