"""The use cases: send, respond, acknowledge, cancel, expire, list.

Synchronous, and the only writer of the table. Whoever speaks MQTT or HTTP calls it
from the loop; it reaches things through the ``Link``, and what must outlive the
process goes through the ``Journal`` before anybody outside hears of it: a request is
published, and a response acknowledged, only when its record is kept.
"""

from __future__ import annotations

import random
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.commands.delivery import Deliveries
from thingctl_broker.commands.dispatcher import Publisher
from thingctl_broker.commands.events import Change, Counters, Events
from thingctl_broker.commands.execution import Cancel, Execution, Outcome
from thingctl_broker.commands.idempotency import IdempotencyKeys, fingerprint
from thingctl_broker.commands.table import ExecutionTable, PageOfExecutions, Query
from thingctl_broker.commands.validation import ServiceSettings, ValidRequest
from thingctl_broker.errors import (
    AlreadyEnded,
    InvalidCommand,
    NotAccepting,
    QueueFull,
    unknown_execution,
)
from thingctl_broker.security.rate_limit import ONCE_A_MINUTE, TokenBuckets
from thingctl_broker.things.registry import ThingRegistry
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import IdSource, check_action_name, check_thing_name
from thingctl_protocol.messages import (
    EMPTY_OBJECT,
    check_json_object,
    decode_announcement,
    decode_response,
    encode_request,
)
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.commands.ports import Clock, Journal, Link
    from thingctl_protocol.messages import StatusReason

EXPIRE_MAX: Final = 1000
"""Executions closed, and let go, in one call of ``expire``: the loop has other work too."""

_check_action_name: Final = lru_cache(maxsize=1024)(check_action_name)
"""There are few actions and many commands. Names that are wrong are not remembered, nor how long they are."""

# Looked up once: it is a call of a function in Python 3.11, and these are asked for with every command.
_CREATED: Final = Change.CREATED
_PUBLISHED: Final = Change.PUBLISHED
_DELIVERED: Final = Change.DELIVERED
_PROGRESSED: Final = Change.PROGRESSED
_ENDED: Final = Change.ENDED
_APPLIED: Final = Outcome.APPLIED

_ENDED_COUNTERS: Final = {status: f"executions.{status}" for status in TERMINAL}

OUTCOME_COUNTERS: Final = {
    Outcome.REPEATED: "responses.repeated",
    Outcome.LATE: "responses.late",
    Outcome.CONFLICTING: "responses.conflicting",
}


class CommandService:
    """Everything one can do with commands, and everything that can happen to them."""

    def __init__(
        self,
        *,
        clock: Clock,
        link: Link,
        journal: Journal,
        table: ExecutionTable | None = None,
        deliveries: Deliveries | None = None,
        things: ThingRegistry | None = None,
        settings: ServiceSettings | None = None,
    ) -> None:
        self.table = ExecutionTable() if table is None else table
        self.things = ThingRegistry() if things is None else things
        self.events = Events()
        self.counters = Counters()
        self.settings = ServiceSettings() if settings is None else settings
        self.journal = journal
        self._deliveries = Deliveries() if deliveries is None else deliveries
        self._clock = clock
        self._ids = IdSource()
        self._keys = IdempotencyKeys()
        self.admission = ValidRequest(self.settings, self.things)
        self._publisher = Publisher(
            deliveries=self._deliveries,
            table=self.table,
            link=link,
            journal=journal,
            clock=clock,
            changed=self._changed,
            stayed_here=self._stayed_here,
        )
        self._random = random.SystemRandom()
        self._entropy = random.Random(self._random.getrandbits(256)).getrandbits  # noqa: S311 ids are no secrets
        self._log = structlog.get_logger("thingctl.service")
        self._log_limit = TokenBuckets(ONCE_A_MINUTE)

    # What operators do.

    def send(
        self,
        thing: str,
        action: str,
        params: bytes = EMPTY_OBJECT,
        ttl: int | None = None,
        *,
        requested_by: str = "",
        idempotency_key: str = "",
        command_id: str = "",
        post_back_uri: str = "",
    ) -> Execution:
        """Accept a command for one thing and see it on its way.

        ``params``: an encoded JSON object. ``ttl``: whole seconds. ``idempotency_key``: with
        the key of an earlier command by the same caller, that command's execution is
        returned and nothing is sent. ``command_id``: of a command to many things (:meth:`make_id`).
        ``post_back_uri``: where a post about its end goes, checked by
        :func:`~thingctl_broker.security.outbound_urls.check_uri`.

        Raises :class:`InvalidCommand`, :class:`~thingctl_broker.errors.UnknownThing`,
        :class:`~thingctl_broker.errors.ThingDisabled`,
        :class:`QueueFull`, :class:`~thingctl_broker.errors.IdempotencyConflict`, :class:`NotAccepting` or
        :class:`~thingctl_broker.errors.TableFull`; then nothing has happened.
        """
        print_ = ""
        if idempotency_key:
            print_ = fingerprint(thing, action, params + post_back_uri.encode(), ttl)
            earlier = self._keys.find(requested_by, idempotency_key, print_)
            if earlier is not None:
                return earlier
        if not self.journal.accepting:
            raise NotAccepting("commands cannot be kept at present, so none is accepted", retry_after=5)
        ttl = self.admission.ttl(ttl)
        at = self._clock.unix()
        unix_ms = int(at * 1000)
        try:
            if thing not in self.things:
                check_thing_name(thing, "/thingId")
            _check_action_name(action, "/action")
            check_json_object(params, "/params")
            command_id = command_id or self._ids.make(unix_ms, self._entropy(62))
            payload = encode_request(
                command_id=command_id, action=action, params=params, timestamp=int(at), ttl=ttl
            )
        except ProtocolError as error:
            raise InvalidCommand(error.text, error.pointer) from None
        self.admission.target(thing, action, params)
        if not self._deliveries.has_room(thing):
            raise QueueFull(
                f"{self._deliveries.waiting(thing)} requests wait for {thing!r} already",
                retry_after=1 if self._deliveries.is_reachable(thing) else 30,
            )
        execution = Execution(
            self._ids.make(unix_ms, self._entropy(62)),
            command_id,
            thing,
            action,
            params,
            ttl,
            created_at=at,
            deadline=self._clock.monotonic() + ttl,
            requested_by=requested_by,
            idempotency_key=idempotency_key,
            fingerprint=print_,
            post_back_uri=post_back_uri,
        )
        left = self.table.add(execution)
        if left is not None:
            self._forget(left)
        if print_:
            self._keys.remember(execution)
        self.counters["executions.created"] += 1
        at_once = self._publisher.offer(execution, at)
        self._changed(execution, _CREATED)
        if at_once:
            self.events.emit(execution, _PUBLISHED)
        self.journal.then(
            partial(self._publisher.write, execution, 1, payload, again=False) if at_once else _nothing,
            partial(self._withdraw, execution),
        )
        return execution

    def make_id(self) -> str:
        """The id of a command to many things."""
        return self._ids.make(int(self._clock.unix() * 1000), self._entropy(62))

    def validate(self, thing: str, action: str, params: bytes, ttl: int | None) -> tuple[str, ...]:
        """Check a command as ``send`` would, and send nothing; return what its params were checked by.

        Raises what ``send`` raises for a command that is wrong.
        """
        return tuple(check.source for check in self.admission.whole(thing, action, params, ttl))

    def check(self, action: str, params: bytes, ttl: int | None) -> None:
        """Raise :class:`InvalidCommand` for what no thing could be sent."""
        self.admission.form(action, params, ttl)

    def get(self, execution_id: str) -> Execution:
        """The execution with that id; raises :class:`~thingctl_broker.errors.UnknownExecution`."""
        execution = self.table.get(execution_id)
        if execution is None:
            raise unknown_execution(execution_id)
        return execution

    def is_reachable(self, thing: str) -> bool:
        """Whether the thing is connected and subscribed to its requests."""
        return self._deliveries.is_reachable(thing)

    def list(self, query: Query, limit: int, cursor: str | None = None) -> PageOfExecutions:
        """Executions, newest first, from behind ``cursor``."""
        return self.table.select(query, limit, cursor)

    def wants_cancel(self, execution: Execution) -> None:
        """Record that an execution is to be canceled; :meth:`cancel` does it when that is kept."""
        execution.cancel_wanted_at = self._when(execution)
        self.journal.record(execution)

    def cancel(self, execution_id: str) -> Execution:
        """Withdraw an execution, or ask its device to stop.

        Raises :class:`~thingctl_broker.errors.UnknownExecution`, and :class:`AlreadyEnded` for one that is
        terminal.
        """
        execution = self.get(execution_id)
        now = self._clock.monotonic()
        execution.cancel_wanted_at = None
        outcome = execution.cancel(now, execution.when(now), self.settings.cancel_grace)
        if outcome is Cancel.ENDED:
            raise AlreadyEnded(f"the execution has ended: {execution.status}")
        if outcome is Cancel.DONE:
            self._ended(execution)
        elif outcome is Cancel.REQUESTED:
            self.table.reschedule(execution)
            self._changed(execution, Change.CANCEL_REQUESTED)
            self._publisher.cancel(execution)
        return execution

    # What things do.

    def connected(self, thing: str, client_id: str) -> None:
        """A thing has connected."""
        self.things.connected(thing, client_id, self._clock.unix())

    def disconnected(self, thing: str) -> None:
        """A thing's last connection is gone."""
        self._deliveries.unreachable(thing)
        self.things.disconnected(thing, self._clock.unix())

    def reachable(self, thing: str, window: int | None = None) -> None:
        """A thing has subscribed to its requests: publish what waits for it, in order.

        ``window``: requests that its client takes before it acknowledges one; None: enough.
        """
        self._publisher.reachable(thing, window)

    def unreachable(self, thing: str) -> None:
        """A thing no longer subscribes to its requests."""
        self._deliveries.unreachable(thing)

    def acknowledged(self, thing: str, execution_id: str) -> None:
        """A thing's MQTT client has acknowledged a request (PUBACK)."""
        execution = self.table.get(execution_id)
        if execution is not None and execution.delivered(self._when(execution)):
            self._changed(execution, _DELIVERED)
        self._publisher.acknowledged(thing, execution_id)

    def refused(self, thing: str, execution_id: str, reason: StatusReason) -> None:
        """A thing's MQTT client has answered a request with an error: nothing of it is going to happen."""
        execution = self.table.get(execution_id)
        if (
            execution is not None
            and execution.thing == thing
            and execution.refuse(reason, self._when(execution))
        ):
            self._ended(execution)

    def respond(self, thing: str, execution_id: str, payload: bytes, kept: Callable[[], None]) -> None:
        """Take in a thing's response; ``kept`` is called when what it changed is on record.

        A response that means nothing here is dropped, counted, and logged at most once a
        minute for each thing; ``kept`` is called for it too, so that it is not sent again.
        """
        execution = self.table.get(execution_id)
        if execution is None:
            self._drop(thing, "unknownExecution", f"no execution {execution_id!r}", execution_id=execution_id)
        elif execution.thing != thing:
            self._drop(
                thing,
                "wrongThing",
                f"execution {execution_id} belongs to another thing",
                execution_id=execution_id,
            )
        else:
            try:
                response = decode_response(payload)
            except ProtocolError as error:
                self._drop(
                    thing,
                    "badPayload",
                    f"{error.text} (at {error.pointer or 'the whole'})",
                    execution_id=execution_id,
                )
            else:
                outcome = execution.respond(response, self._when(execution))
                if outcome is _APPLIED:
                    self.counters["responses.applied"] += 1
                    if execution.is_terminal:
                        self._ended(execution)
                    else:
                        self._changed(execution, _PROGRESSED)
                        self._publisher.acknowledged(thing, execution_id)  # it has the request
                else:
                    self._note_outcome(execution, outcome)
                self.journal.then(kept)
                return
        kept()

    def announce(self, thing: str, payload: bytes) -> None:
        """Take in what a thing says it can do; an empty payload withdraws it."""
        try:
            announcement = decode_announcement(payload) if payload else None
        except ProtocolError as error:
            self._drop(thing, "badAnnouncement", f"{error.text} (at {error.pointer or 'the whole'})")
            return
        self.things.announced(thing, announcement, self._clock.unix())

    def dropped(self, thing: str, reason: str, text: str) -> None:
        """A thing sent something that the front had to drop."""
        self._drop(thing, reason, text)

    # What time does.

    def expire(self) -> int:
        """Close the executions whose deadline has passed; return how many that were.

        At most ``EXPIRE_MAX`` at once; ``seconds_to_next_deadline`` is 0 while there are more.
        """
        now = self._clock.monotonic()
        closed = 0
        for execution in islice(self.table.due(now), EXPIRE_MAX):
            if execution.expire(now, execution.when(now)):
                closed += 1
                self._ended(execution)
            else:
                self.table.reschedule(execution)
        for left in self.table.evict(now, EXPIRE_MAX):
            self._forget(left)
        return closed

    def seconds_to_next_deadline(self) -> float | None:
        """How long until ``expire`` may have something to do; None: nothing is live."""
        deadline = self.table.next_deadline()
        return None if deadline is None else max(0.0, deadline - self._clock.monotonic())

    def monotonic(self) -> float:
        """Monotonic time, seconds, as the service sees it."""
        return self._clock.monotonic()

    def unix(self) -> float:
        """Wall time, Unix seconds, as the service sees it."""
        return self._clock.unix()

    # What a restart does.

    def restore(self, executions: Iterable[Execution]) -> int:
        """Take in what the journal has kept, oldest first; return how many that were.

        Only before anything else. A live execution waits again, or is published again if it
        was published and not acknowledged. A live one that was to be canceled is, and so is
        one of a thing that was removed; where things enrol themselves, its thing is known.
        """
        count = 0
        last = ""
        withdrawn: list[str] = []
        for execution in executions:
            count += 1
            last = execution.execution_id
            self.table.restore(execution)
            self._keys.remember(execution)
            if self.things.learns:
                # Known by what it was sent; when it was last there, nobody has written down.
                self.things.know(execution.thing, execution.created_at)
            if not execution.is_terminal:
                self._restore_live(execution)
                if execution.cancel_wanted_at is not None or self.things.get(execution.thing) is None:
                    withdrawn.append(execution.execution_id)
        for left in self.table.restored():
            self._forget(left)
        if last:
            self._ids.continue_after(last)
        for execution_id in withdrawn:
            self.cancel(execution_id)
        return count

    # How it is done.

    def _restore_live(self, execution: Execution) -> None:
        if self.things.enrols:
            self.things.know(execution.thing, execution.created_at)
        if execution.cancel_requested_at is not None:
            self._deliveries.cancel(execution.thing, execution.execution_id)
        elif execution.delivered_at is None and execution.started_at is None:
            published = execution.published_at is not None
            self._deliveries.restore(execution.thing, execution.execution_id, published=published)

    def _forget(self, execution: Execution) -> None:
        self.journal.forget(execution.execution_id)
        self._keys.forget(execution)

    def _withdraw(self, execution: Execution) -> None:
        """An execution could not be kept, so it never was: nobody has been told of it.

        Not even when it has timed out meanwhile, on a disk that took that long to fail.
        """
        if self.table.get(execution.execution_id) is execution:
            self.counters["executions.withdrawn"] += 1
            self.table.withdraw(execution)
            self._forget(execution)
            self._publisher.ended(execution.thing, execution.execution_id)

    def _when(self, execution: Execution) -> float:
        return execution.when(self._clock.monotonic())

    def _stayed_here(self, execution: Execution) -> None:
        execution.stayed_here(self._when(execution))
        self._ended(execution)

    def _ended(self, execution: Execution) -> None:
        self.counters[_ENDED_COUNTERS[execution.status]] += 1
        self.table.ended(execution)
        self._changed(execution, _ENDED)
        self._publisher.ended(execution.thing, execution.execution_id)

    def _changed(self, execution: Execution, change: Change) -> None:
        self.journal.record(execution)
        self.events.emit(execution, change)

    def _note_outcome(self, execution: Execution, outcome: Outcome) -> None:
        self.counters[OUTCOME_COUNTERS[outcome]] += 1
        if outcome is Outcome.LATE:
            self._changed(execution, Change.LATE)
        elif outcome is Outcome.CONFLICTING:
            self.journal.record(execution)
            self._warn(
                execution.thing, "response contradicts the verdict", execution_id=execution.execution_id
            )

    def _drop(self, thing: str, reason: str, text: str, **ids: str) -> None:
        self.counters[f"dropped.{reason}"] += 1
        self._warn(thing, "message dropped", reason=reason, fault=text, **ids)

    def _warn(self, thing: str, event: str, **details: object) -> None:
        key = f"{thing} {details.get('reason', event)}"  # one reason does not hide another
        if self._log_limit.allows(key, self._clock.monotonic()):
            self._log.warning(event, thing=thing, **details)


def _nothing() -> None:
    """No-op completion callback."""
