"""What a child of the agent by ``os.fork`` gives up: the journal's lock, the connection, the signals.

Otherwise a child that outlives the agent keeps the next one from starting. A program that is
executed (``ctx.run``, ``subprocess``) inherits none of it anyway.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_given_up: Final[list[Callable[[], Any]]] = []
"""What each child calls. A list, as what is registered at the interpreter stays for ever."""


@contextlib.contextmanager
def given_up(*calls: Callable[[], Any]) -> Iterator[None]:
    """Have each child that is forked inside call these, in order. What they raise is ignored."""
    _given_up.extend(calls)
    try:
        yield
    finally:
        for call in calls:
            _given_up.remove(call)


_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_thread: Final = threading.local()


def _before() -> None:
    # A signal to the child must not meet the agent's handlers, which would only take note of it.
    _thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS) if _given_up else None


def _unblock() -> None:
    if _thread.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _thread.mask)


def _give_up() -> None:
    for call in _given_up:
        with contextlib.suppress(Exception):
            call()
    _given_up.clear()
    _unblock()


os.register_at_fork(before=_before, after_in_parent=_unblock, after_in_child=_give_up)
