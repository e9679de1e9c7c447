"""What things say to a worker: each word is kept before the cluster is told that it was heard."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.link_port import Source
from thingctl_broker.commands.events import Change
from thingctl_broker.commands.execution import Outcome
from thingctl_broker.commands.service import OUTCOME_COUNTERS
from thingctl_broker.security.rate_limit import ONCE_A_MINUTE, Rate, TokenBuckets
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.messages import decode_announcement, decode_response
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from thingctl_broker.cluster.dispatcher import ClusterDispatcher
    from thingctl_broker.cluster.link_port import PresenceReport, ThingLink
    from thingctl_broker.cluster.operations import ClusterOperations
    from thingctl_broker.cluster.reachability import Reachability
    from thingctl_broker.cluster.registry_replica import RegistryReplica
    from thingctl_broker.cluster.store_port import ExecutionStore

ANSWERS_MAX: Final = 16
"""Responses to one execution that are being kept at a time; of verdicts twice as many."""

SAYINGS: Final = Rate(1.0, 20)
"""Announcements and presence of one thing that are kept, and told to all workers, one by one."""

_log = structlog.get_logger("thingctl.cluster")


class InboundMessages:
    """Takes in responses, announcements and presence."""

    def __init__(
        self,
        *,
        operations: ClusterOperations,
        store: ExecutionStore,
        mirror: RegistryReplica,
        link: ThingLink,
        reach: Reachability,
        requests: ClusterDispatcher,
    ) -> None:
        self._operations = operations
        self._store = store
        self._mirror = mirror
        self._link = link
        self._reach = reach
        self._requests = requests
        self._log_limit = TokenBuckets(ONCE_A_MINUTE)
        self._answers: Counter[str] = Counter()
        self._sayings = TokenBuckets(SAYINGS)

    async def responded(self, thing: str, execution_id: str, payload: bytes) -> None:
        """A thing has answered. Raises :class:`~thingctl_broker.cluster.store_port.StoreDown`."""
        self._mirror.things.seen(thing, self._operations.unix())
        if self._reach.arrived(thing):
            self._requests.offer(thing)
        try:
            response = decode_response(payload)
        except ProtocolError as error:
            self.dropped(thing, "badPayload", f"{error.text} (at {error.pointer or 'the whole'})")
            return
        # They are kept one after the other, and a flood of them would hold up those of all others.
        room = ANSWERS_MAX if response.status is Status.IN_PROGRESS else 2 * ANSWERS_MAX
        if self._answers[execution_id] >= room:
            self.dropped(thing, "tooMany", f"more responses to {execution_id} than can be kept at a time")
            return
        self._answers[execution_id] += 1
        try:
            execution, outcome, wrong_thing = await self._store.respond(thing, execution_id, response)
        finally:
            self._answers[execution_id] -= 1
            if not self._answers[execution_id]:
                del self._answers[execution_id]
        if execution is None or outcome is None:
            if wrong_thing:
                self.dropped(thing, "wrongThing", f"execution {execution_id} belongs to another thing")
            else:
                self.dropped(thing, "unknownExecution", f"no execution {execution_id!r}")
            return
        if outcome is Outcome.APPLIED:
            self._operations.counters["responses.applied"] += 1
            change = Change.ENDED if execution.is_terminal else Change.PROGRESSED
            self._operations.changed_here(execution, change)
            return
        self._operations.counters[OUTCOME_COUNTERS[outcome]] += 1
        if outcome is Outcome.LATE:
            self._operations.changed_here(execution, Change.LATE)
        elif outcome is Outcome.CONFLICTING:
            self._warn(thing, "response contradicts the verdict", execution_id=execution_id)

    async def announced(self, thing: str, payload: bytes, source: Source) -> None:
        """A thing says what it can do."""
        try:
            announcement = decode_announcement(payload) if payload else None
        except ProtocolError as error:
            self.dropped(thing, "badAnnouncement", f"{error.text} (at {error.pointer or 'the whole'})")
            return
        if not await self._is_known(thing):
            return
        known = self._mirror.things.get(thing)
        if known is None or known.announcement != announcement:
            self._mirror.things.announced(thing, announcement, self._operations.unix())
        if self._says_too_much(thing):
            return
        await self._mirror.kept()  # also what was not kept when it came the first time
        if source is Source.LIVE and announcement is not None:
            self._greet(thing)

    async def present(self, presence: PresenceReport) -> None:
        """A thing has come or gone."""
        thing = presence.thing
        if not await self._is_known(thing):
            return
        now = self._operations.unix()
        at = now if presence.at is None else min(presence.at, now)  # clocks differ; nobody comes tomorrow
        known = self._mirror.things.get(thing)
        if known is not None and known.since is not None and at < known.since:
            return  # told late: newer is known
        if presence.online:
            self._mirror.things.connected(thing, presence.client_id, at, anew=True)
        elif known is None or not known.online or presence.client_id in {"", known.client_id}:
            self._mirror.things.disconnected(thing, at)
        else:
            return  # another connection of the thing has taken over from the one that went
        if self._says_too_much(thing):
            return
        await self._mirror.kept()
        if presence.online:
            self._greet(thing)

    def _says_too_much(self, thing: str) -> bool:
        """Whether what the thing said last is not worth a commit of its own.

        It is noted, and the next turn writes down how it stands then.
        """
        if self._sayings.allows(thing, self._operations.monotonic()):
            return False
        self._operations.counters["things.hasty"] += 1
        self._warn(thing, "a thing says more of itself than is kept at once")
        return True

    def dropped(self, thing: str, reason: str, text: str) -> None:
        """A message means nothing here: counted, and logged at most once a minute for each thing."""
        self._operations.counters[f"dropped.{reason}"] += 1
        self._warn(thing, "message dropped", reason=reason, fault=text)

    def _greet(self, thing: str) -> None:
        """The thing is there: it gets the time, and what waits for it."""
        self._requests.tell_time(thing, anew=True)
        self._requests.arrived(thing)

    async def _is_known(self, thing: str) -> bool:
        if self._mirror.things.enrols or await self._operations.thing(thing) is not None:
            return True
        self.dropped(thing, "unknownThing", f"no thing is named {thing!r}: add it first")
        return False

    def _warn(self, thing: str, event: str, **details: object) -> None:
        key = f"{thing} {details.get('reason', event)}"  # one reason does not hide another
        if self._log_limit.allows(key, self._operations.monotonic()):
            _log.warning(event, thing=thing, **details)
