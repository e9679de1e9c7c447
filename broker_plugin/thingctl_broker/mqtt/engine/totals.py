"""What all sessions share: limits, the bytes that wait, counters, and who has something to write. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Outlet(Protocol):
    """Takes a session's packets to its client."""

    def flush(self) -> None:
        """Take what is there."""
        ...


class WaitingSession(Protocol):
    """A session with packets to write."""

    client_id: str
    outlet: Outlet | None
    is_dirty: bool
    """Whether it is listed already."""


class EngineLimits(Protocol):
    """Bounds of the engine. Sizes in bytes."""

    @property
    def client_bytes(self) -> int:
        """What may wait for one client, wherever it waits."""
        ...

    @property
    def total_bytes(self) -> int:
        """What may wait for all clients together."""
        ...

    @property
    def away_messages(self) -> int:
        """Messages that may wait for a client that is away."""
        ...

    @property
    def kept_sessions(self) -> int:
        """Sessions of clients that are away."""
        ...

    @property
    def kept_sessions_per_thing(self) -> int:
        """Those of one thing."""
        ...

    @property
    def retained(self) -> int:
        """Retained messages."""
        ...

    @property
    def retained_bytes(self) -> int:
        """The bytes of all of them together."""
        ...


class Totals:
    """One for each engine."""

    __slots__ = (
        "common_bytes",
        "counters",
        "dirty",
        "limits",
        "on_drop",
        "received",
        "sent",
        "share",
        "slow",
        "waiting_bytes",
        "wake",
    )

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self.on_drop: Callable[[str, str, str], None] = _ignore
        """Called with the reason, the client id and the topic of each message that is dropped."""
        self.wake: Callable[[], None] = _nothing
        """Called when ``dirty`` is about to have its first entry."""
        self.waiting_bytes = 0
        """Bytes that wait for any client."""
        self.common_bytes = limits.total_bytes // 3 * 2
        """What all clients may use of the total; the rest is kept for those for whom little waits."""
        self.share = limits.total_bytes - self.common_bytes
        """What may wait for each client when the common part is used up."""
        self.counters: Counter[str] = Counter()
        """Messages that were dropped, and sessions that have ended, by reason."""
        self.received = 0
        """Messages published."""
        self.sent = 0
        """Messages given to clients."""
        self.dirty: list[WaitingSession] = []
        """Sessions with bytes to write that were not in this list before."""
        self.slow: list[WaitingSession] = []
        """Connected sessions for which more waits than half of what may, since the last look."""

    def share_among(self, sessions: int) -> None:
        """Give each of so many sessions its share, which a few slow readers take from no other."""
        self.share = (self.limits.total_bytes - self.common_bytes) // max(1, sessions)

    def drop(self, reason: str, client_id: str, topic: str) -> None:
        """Count a message that a client does not get."""
        self.counters[f"dropped.{reason}"] += 1
        self.on_drop(reason, client_id, topic)


def _ignore(reason: str, client_id: str, topic: str) -> None:
    """Do nothing: the counter says it."""


def _nothing() -> None:
    """Without anybody to write, there is nothing to do."""
