"""Where a call comes from, for whoever writes it down: set once where it enters, read where it matters."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, NamedTuple


class Caller(NamedTuple):
    """Who calls (the name of an API token), and from which address."""

    who: str
    address: str


NOBODY: Final = Caller("", "")
"""Nobody in particular: the broker itself."""

origin: ContextVar[Caller] = ContextVar("origin", default=NOBODY)
"""Of the call that is being answered. Tasks inherit it."""
