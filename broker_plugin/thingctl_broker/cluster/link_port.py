"""What a worker needs of the MQTT cluster, as protocols: a way to the things, and what they say.

Every worker has one connection, by which it shares the messages of all things with the others.
Times are Unix seconds.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class LinkDown(Exception):
    """There is no connection to the MQTT cluster at present, or it refuses to take a message."""


class Handed(Enum):
    """What the cluster made of a request."""

    TAKEN = auto()
    """It has taken it: somebody subscribes, now or by a kept session."""

    NOBODY = auto()
    """Nobody subscribes: it went nowhere (PUBACK reason code 0x10 [MQTT 5.0 section 3.4.2.1]).

    Or its time ran out before there was room to publish it; it has not left either.
    """


class PresenceReport(NamedTuple):
    """What the cluster, or an agent's will, says of a connection. ``at``: Unix seconds, None: unknown."""

    thing: str
    online: bool
    client_id: str = ""
    at: float | None = None


class Source(StrEnum):
    """Where a sign of life came from."""

    RETAINED = "retained"
    """It was kept by the cluster: it says nothing of this moment."""

    LIVE = "live"


class InboundPort(Protocol):
    """Whom the link tells what things say. A message is acknowledged when the call returns.

    Several are called at the same time. A message whose handler raises is not acknowledged: it is
    tried again while the connection lasts, and then the cluster delivers it again. So any may
    come twice, and messages of one thing may overtake one another.
    """

    async def responded(self, thing: str, execution_id: str, payload: bytes) -> None:
        """A thing has answered."""
        ...

    async def announced(self, thing: str, payload: bytes, source: Source) -> None:
        """A thing says what it can do; an empty payload withdraws it."""
        ...

    async def present(self, presence: PresenceReport) -> None:
        """A thing has come or gone."""
        ...

    def dropped(self, thing: str, reason: str, text: str) -> None:
        """A message that means nothing here (acknowledged all the same)."""
        ...


class ThingLink(Protocol):
    """How a worker reaches things over the MQTT cluster."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, and the subscriptions are granted."""
        ...

    async def start(self, incoming: InboundPort, on_state: Callable[[bool], None]) -> None:
        """Connect and subscribe, and from now on connect again whenever the connection is lost.

        Returns at the first success; ``on_state`` hears of every change of ``connected``.
        Raises :class:`~thingctl_broker.errors.ConfigurationError` when the cluster refuses for good.
        """
        ...

    async def stop(self) -> bool:
        """Let go: what was received is handled and acknowledged, then the session ends.

        False: it could not be ended (no connection, or messages that could not be handled in
        time). The cluster keeps it for another worker to adopt, so do not call the store's
        :meth:`~thingctl_broker.cluster.store_port.Workers.gone`.
        """
        ...

    async def publish_request(
        self, thing: str, execution_id: str, payload: bytes, expires_in: float
    ) -> Handed:
        """Publish a request (QoS 1, forgotten after ``expires_in`` seconds); return at its PUBACK.

        Raises :class:`LinkDown` when the connection is away or is lost meanwhile, and when the
        cluster refuses to take it (its ACL, a quota).
        """
        ...

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Ask the thing to stop, if it listens. Raises :class:`LinkDown`."""
        ...

    def publish_time(self, thing: str, at: float) -> None:
        """Tell a thing the time. Does nothing without a connection."""
        ...

    async def adopt(self, client_id: str) -> None:
        """Take over the session of a worker that has died: handle what was queued for it, then end it.

        Returns when nothing more came and the session is gone. Raises :class:`LinkDown`; then it
        is still there. What it holds may be old: announcements come as :attr:`Source.RETAINED`.
        """
        ...

    async def catch_up(self) -> None:
        """Hear every announcement that the cluster has kept, once, as :attr:`Source.RETAINED`.

        A shared subscription is sent none of them [MQTT 5.0 section 4.8.2]: for a worker that
        starts when no other one lives. Returns when all have come; raises :class:`LinkDown`.
        """
        ...
