"""One connection with what goes over it: an inbox, an outbox, and an orderly end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from thingctl_broker.cluster.link_port import LinkDown, Source
from thingctl_broker.mqtt.cluster.inbox import LinkInbox
from thingctl_broker.mqtt.cluster.outbox import LinkOutbox
from thingctl_broker.mqtt.protocol.reason_codes import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.cluster.link_port import InboundPort
    from thingctl_broker.mqtt.cluster.connection import LinkConnection
    from thingctl_broker.mqtt.cluster.dialer import LinkDialer
    from thingctl_protocol.topics import Topics

QUIET: Final = 0.5
"""Seconds without a message after which no more are on their way to a session without subscriptions."""

_LOOK_EVERY: Final = 0.02


class LinkSession:
    """An MQTT session of one client, while it is connected."""

    def __init__(self, connection: LinkConnection, inbox: LinkInbox, outbox: LinkOutbox) -> None:
        self.connection = connection
        self.inbox = inbox
        self.outbox = outbox

    @classmethod
    async def open(
        cls,
        dialer: LinkDialer,
        client_id: str,
        topics: Topics,
        incoming: InboundPort,
        *,
        source: Source = Source.LIVE,
    ) -> LinkSession:
        """Connect; messages that the cluster has kept come right away. Raises :class:`RequestRefused`."""
        made: list[LinkConnection] = []
        outboxes: list[LinkOutbox] = []

        def acknowledge(packet_id: int) -> None:
            made[-1].acknowledge(packet_id)

        inbox = LinkInbox(topics, incoming, acknowledge, source=source)

        def acknowledged(packet_id: int, code: int) -> None:
            if outboxes:
                outboxes[0].acknowledged(packet_id, code)

        connection = await dialer.dial(client_id, inbox.take, acknowledged, made.append)
        outboxes.append(LinkOutbox(connection.publish, connection.window))
        session = cls(connection, inbox, outboxes[0])
        connection.lost.add_done_callback(session._lost)
        return session

    async def quiet(self, seconds: float) -> None:
        """Return when everything received is handled and nothing more has come for so long.

        Raises :class:`LinkDown` when the connection is lost before.
        """
        loop, inbox = asyncio.get_running_loop(), self.inbox
        inbox.heard_at = loop.time()
        while not inbox.is_empty or loop.time() < inbox.heard_at + seconds:
            if self.connection.lost.done():
                raise LinkDown(self.connection.lost.result())
            await asyncio.sleep(_LOOK_EVERY)

    async def all_kept(self, seconds: float) -> None:
        """Return when no message that the cluster had kept has come for so long; raises :class:`LinkDown`."""
        loop, inbox = asyncio.get_running_loop(), self.inbox
        inbox.kept_heard_at = loop.time()
        while loop.time() < inbox.kept_heard_at + seconds:
            if self.connection.lost.done():
                raise LinkDown(self.connection.lost.result())
            await asyncio.sleep(_LOOK_EVERY)

    async def finish(self, filters: Sequence[str], within: float | None = None) -> bool:
        """Leave the group, handle what has come and what is queued, end the session.

        Return False, the session being kept, if that took over ``within`` seconds. Raises
        :class:`LinkDown` when the connection is lost on the way; then it is kept as well.
        """
        try:
            await self.connection.unsubscribe(filters)
            async with asyncio.timeout(within):
                await self.quiet(QUIET)
        except TimeoutError:
            await self.connection.end(session=False)
            return False
        except RequestRefused as refused:
            self.connection.abort(refused.text)
            raise LinkDown(refused.text) from None
        except BaseException:
            self.connection.abort("given up")
            raise
        await self.connection.end(session=True)
        return True

    def _lost(self, lost: asyncio.Future[str]) -> None:
        self.inbox.close()
        self.outbox.close(lost.result())
