"""A client's session: whose it is, its subscriptions and its will, and what is on its way both ways.

Pure. A session outlives its connections if its client wants that.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from thingctl_broker.mqtt.engine.command_subscriptions import CommandSubscriptions
from thingctl_broker.mqtt.engine.outbox import Outbox

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.recording import Recorder
    from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
    from thingctl_broker.mqtt.engine.totals import Totals
    from thingctl_broker.mqtt.protocol.packets import Will


class Session(Outbox):
    """One client's session. ``owner``: the user it belongs to; no other takes it up."""

    __slots__ = ("away_since", "commands", "drops", "owner", "received", "subscriptions", "thing", "will")

    def __init__(
        self, client_id: str, totals: Totals, recorder: Recorder, *, owner: str | None, thing: str | None
    ) -> None:
        super().__init__(client_id, totals, recorder)
        self.owner = owner
        self.thing = thing
        self.away_since = 0.0
        """When its last connection ended, in monotonic seconds."""
        self.will: Will | None = None
        self.subscriptions: dict[str, SubscriptionOptions] = {}
        self.commands = CommandSubscriptions()
        self.drops: Counter[str] | None = None
        """Messages that the client did not get, or that were not retained for it, by reason; None: none."""
        self.received: dict[int, None] = {}
        """Packet identifiers of QoS 2 messages from the client that it has not released."""

    def leave(self, now: float) -> None:
        """The connection has ended."""
        self.detach()
        self.away_since = now

    def end(self) -> None:
        """The session has ended: nothing of it is kept."""
        self.discard()
        if self.is_recorded:
            for packet_id in self.received:
                self._recorder.released(self.number, packet_id)

    def count_drop(self, reason: str) -> None:
        """Count a message that the client did not get."""
        if self.drops is None:
            self.drops = Counter()
        self.drops[reason] += 1
