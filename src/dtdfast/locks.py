"""Locks that a forked child finds free, whatever the parent's other threads did when it forked.

They let the thread that holds them in again: a signal's handler, or an object that is collected, may explain while it
does. What such a thread finds may be half changed.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any
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
"""Held while settings are other that all threads share, and while PyTorch exports, which it does on one at a time."""


def _renew() -> None:
    for owner, name in list(_owners.items()):
        setattr(owner, name, threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
