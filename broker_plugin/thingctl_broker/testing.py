"""Fakes that ship: drive the service with no broker, no socket and no waiting.

>>> from thingctl_broker.testing import service_with_fakes
>>> service, link, clock = service_with_fakes(things=["lamp"])
>>> execution = service.send("lamp", "turnOn", ttl=5)
>>> execution.status, execution.delivery
(<Status.SENT: 'SENT'>, <Delivery.QUEUED: 'QUEUED'>)
>>> clock.advance(5); service.expire(); execution.status
1
<Status.TIMED_OUT: 'TIMED_OUT'>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from thingctl_broker.service import CommandService
from thingctl_broker.unkept import NoJournal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingctl_broker.ports import Journal


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, monotonic: float = 1000.0, unix: float = 1_748_390_400.0) -> None:
        self._monotonic = monotonic
        self._unix = unix

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return self._monotonic

    def unix(self) -> float:
        """Seconds since 1970."""
        return self._unix

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._monotonic += seconds
        self._unix += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock wrong, as NTP or a hand does; no time passes."""
        self._unix += seconds


class Published(NamedTuple):
    """A request that went out over an :class:`InMemoryLink`."""

    thing: str
    execution_id: str
    payload: bytes
    again: bool


class InMemoryLink:
    """Remembers what would have gone to the things. ``acknowledging``: a PUBACK is to follow."""

    def __init__(self, *, acknowledging: bool = True) -> None:
        self.acknowledging = acknowledging
        self.published: list[Published] = []
        self.canceled: list[tuple[str, str]] = []

    def publish_request(self, thing: str, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Remember a request."""
        self.published.append(Published(thing, execution_id, payload, again))
        return self.acknowledging

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Remember a cancel."""
        self.canceled.append((thing, execution_id))


def service_with_fakes(
    things: Iterable[str] = (),
    journal: Journal | None = None,
) -> tuple[CommandService, InMemoryLink, ManualClock]:
    """A service that knows ``things``, none of them connected, on a link and a clock of its own."""
    link, clock = InMemoryLink(), ManualClock()
    service = CommandService(clock=clock, link=link, journal=NoJournal() if journal is None else journal)
    for thing in things:
        service.things.know(thing, clock.unix())
    return service, link, clock
