"""The agent's core: something happens, effects come out. Pure.

No clock, socket, file, thread or logger: ``now`` (seconds since boot) and ``wall`` (gives
Unix seconds, or ``None`` when the wall clock may be wrong) are passed in, and what
is to be done comes back as a list of effects, to be done in order.

An execution goes: held (its age cannot be told yet) -> waiting (for a place) -> running
-> answered -> acknowledged, and may be answered from any of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from thingctl_agent.core import hints, outcome
from thingctl_agent.core.clock import BrokerClock, Wall
from thingctl_agent.core.effects import Effect, Interrupt, PublishEffect, Start
from thingctl_agent.core.history import Accepted, Cleared, History, Kept, Rebooting, Record, Started
from thingctl_agent.core.pending import AT_WORK_AFTER, HOLD, Call, Limits
from thingctl_agent.core.recovery import interrupted, not_rebooted, settle
from thingctl_agent.core.responder import Answers
from thingctl_agent.core.slots import Slots
from thingctl_agent.handlers.registry import InvalidParamsError
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.messages import (
    Announcement,
    Presence,
    decode_request,
    decode_time,
    encode_announcement,
    encode_presence,
)
from thingctl_protocol.statuses import Status
from thingctl_protocol.topics import Kind, Topics

if TYPE_CHECKING:
    from thingctl_agent.core.history import Entry
    from thingctl_agent.core.outcome import CallOutcome
    from thingctl_agent.handlers.registry import Action, Registry

REBOOT_WITHIN: Final = 300.0
"""Seconds in which the device must go down once a handler has asked for a reboot."""

ANNOUNCEMENT: Final = "announcement"
"""The receipt of the announcement; no execution id can be in its place in the loop's table."""


class DeviceSession:
    """Everything the agent decides for one thing."""

    def __init__(
        self,
        thing: str,
        registry: Registry,
        history: History,
        *,
        topics: Topics | None = None,
        limits: Limits | None = None,
        version: str = "",
    ) -> None:
        self.thing = thing
        self.topics = topics or Topics()
        self._registry = registry
        self._history = history
        self._limits = limits or Limits()
        self._version = version
        self._out = Answers(thing, self.topics, history)
        self._clock = BrokerClock()
        self._slots = Slots(self._limits.running)
        self._waiting: dict[str, Call] = {}
        self._running: dict[str, Call] = {}
        self._rebooting: dict[str, tuple[Call, float]] = {}
        self._hold_until: float | None = None
        self._stopping = False

    # -- what happens

    def recover(
        self, boot_id: str, now: float, wall: Wall, *, trusted: bool, found: History | None = None
    ) -> list[Effect]:
        """Take up what an earlier run left. Call once, first.

        Call it again with the history ``found`` in a journal that could not be opened then; what this
        run knows is added to it. ``trusted``: the journal is whole and lost nothing, and a
        request without a Started record was certainly not begun.
        """
        ours = History()
        if found is not None:
            ours, self._history = self._history, found
        history = self._history
        rebooted = history.boot_id not in {"", boot_id}
        history.boot_id = boot_id
        unacknowledged = [one for one in history.unacknowledged() if ours.get(one[0]) is None]
        unanswered = [one for one in history.unanswered() if ours.get(one[0]) is None]
        history.merge(ours)
        self._out.adopt(history)
        for execution_id, payload in unacknowledged:
            self._out.send(self._out.outbox.put(execution_id, payload))
        for execution_id, entry in unanswered:
            self._recover_one(execution_id, entry, rebooted=rebooted, trusted=trusted)
        self._start_ready(now, wall)
        return self._out.take()

    def connected(self, now: float) -> list[Effect]:
        """The broker has accepted the connection."""
        self._clock.connected()
        self._out.send(self._out.outbox.connected())
        self._out.progress(self._out.reporter.connected(now))
        return self._out.take()

    def subscribed(self, now: float) -> list[Effect]:
        """The broker has accepted the subscription to requests."""
        if self._hold_until is None:
            self._hold_until = now + HOLD
        return self._out.take()

    def disconnected(self) -> list[Effect]:
        """The connection is gone."""
        self._out.outbox.disconnected()
        self._out.reporter.disconnected()
        return self._out.take()

    def message(self, topic: str, payload: bytes, now: float, wall: Wall, *, retain: bool) -> list[Effect]:
        """A message arrived. Retained ones are history, not requests."""
        parsed = self.topics.parse(topic)
        if parsed is None or parsed.thing != self.thing or retain:
            self._out.note("warning", "message ignored", topic=topic, retain=retain)
        elif parsed.kind is Kind.TIME:
            self._time(payload, now)
        elif parsed.kind is Kind.REQUEST and parsed.execution_id is not None:
            self._request(parsed.execution_id, payload, now, wall)
        elif parsed.kind is Kind.CANCEL and parsed.execution_id is not None:
            self._cancel(parsed.execution_id)
        self._start_ready(now, wall)
        return self._out.take()

    def acknowledged(self, receipt: str) -> list[Effect]:
        """The broker has acknowledged a publish that had this receipt."""
        if self._out.reporter.acknowledged(receipt):
            return self._out.take()
        entry = self._history.get(receipt)
        if entry is not None and not entry.cleared:
            self._out.record(Cleared(receipt), durable=entry.durable, flush=False)
        self._out.send(self._out.outbox.acknowledged(receipt))
        return self._out.take()

    def progress(
        self, execution_id: str, percent: float | None, message: str | None, now: float
    ) -> list[Effect]:
        """A handler says how far it has come."""
        call = self._running.get(execution_id)
        if call is not None and not call.answered:
            call.at_work_at = None
            self._out.progress(self._out.reporter.say(execution_id, percent, message, now))
        return self._out.take()

    def keep(self, execution_id: str, value: bytes) -> list[Effect]:
        """A handler wants to find ``value`` again after a restart."""
        call = self._running.get(execution_id)
        if call is not None and not call.answered:
            self._out.record(Kept(execution_id, value), durable=call.action.policy.durable, flush=False)
        return self._out.take()

    def finished(self, execution_id: str, result: CallOutcome, now: float, wall: Wall) -> list[Effect]:
        """A handler has ended."""
        call = self._running.pop(execution_id)
        self._slots.release(execution_id, was_overdue=call.answered)
        if call.answered:
            self._out.note(
                "warning", "handler ended after its answer", executionId=execution_id, status=result.status
            )
        elif call.action.policy.reboots and result.status is Status.SUCCEEDED:
            self._rebooting[execution_id] = (call, now + REBOOT_WITHIN)
            self._out.record(Rebooting(execution_id, result.encode()), flush=True)
            self._out.note("info", "restart asked for", executionId=execution_id)
        elif call.asked_to_stop == "stop" and result.status is Status.CANCELED:
            if not call.action.policy.reruns:
                self._out.answer(call, interrupted())
        else:
            self._out.answer(call, result)
        self._start_ready(now, wall)
        return self._out.take()

    def rebooting(self, execution_id: str, result: Any, now: float) -> list[Effect]:
        """A handler is about to restart the device. No effect: it has been answered already."""
        call = self._running.get(execution_id)
        if call is not None and not call.answered:
            call.rebooting = True
            call.timeout_at = now + REBOOT_WITHIN
            payload = outcome.succeeded(result).encode()
            self._out.record(Rebooting(execution_id, payload), flush=True)
            self._out.note("info", "restart asked for", executionId=execution_id)
        return self._out.take()

    def awaits_reboot(self, execution_id: str) -> bool:
        """Whether the handler has ended, and the execution ends with the device's restart."""
        return execution_id in self._rebooting

    def goes_down(self, execution_id: str) -> bool:
        """Whether its handler has recorded that the device is about to restart."""
        call = self._running.get(execution_id)
        return execution_id in self._rebooting or (call is not None and call.rebooting)

    def unsaved(self, record: Record, now: float, wall: Wall) -> list[Effect]:
        """A record could not be written: what depends on it is not done."""
        if isinstance(record, Rebooting) and (rebooting := self._running.get(record.execution_id)):
            rebooting.rebooting = False  # its handler hears of it, and does not restart the device
        if not isinstance(record, Accepted | Started):
            return []
        call = self._running.pop(record.execution_id, None)
        if call is not None:
            self._slots.release(record.execution_id)
        else:
            call = self._waiting.pop(record.execution_id, None)
        if call is not None:
            self._out.answer(
                call, outcome.rejected(outcome.JOURNAL_UNAVAILABLE, "the device cannot write its journal")
            )
        self._start_ready(now, wall)
        return self._out.take()

    def tick(self, now: float, wall: Wall) -> list[Effect]:
        """Time has passed."""
        for call in [call for call in self._running.values() if not call.answered]:
            if call.timeout_at is not None and call.timeout_at <= now:
                self._time_out(call)
            elif call.at_work_at is not None and call.at_work_at <= now:
                call.at_work_at = None
                self._out.progress(self._out.reporter.at_work(call.execution_id, now))
        for execution_id, (call, until) in list(self._rebooting.items()):
            if until <= now:
                del self._rebooting[execution_id]
                self._out.answer(call, not_rebooted("the device did not go down"))
        self._out.progress(self._out.reporter.due(now))
        self._start_ready(now, wall)
        return self._out.take()

    def next_due(self) -> float | None:
        """When :meth:`tick` has something to do next (seconds since boot); ``None``: not foreseeable."""
        running = [call for call in self._running.values() if not call.answered]
        times = [call.timeout_at for call in running if call.timeout_at is not None]
        times += [call.at_work_at for call in running if call.at_work_at is not None]
        times += [until for _, until in self._rebooting.values()]
        for call in self._waiting.values():
            if call.deadline is not None:
                times.append(call.deadline)
            elif self._hold_until is not None:
                times.append(self._hold_until)
        times += self._out.reporter.due_times()
        return min(times, default=None)

    # -- stopping

    def stop(self) -> list[Effect]:
        """The agent is to stop: nothing starts any more, handlers are asked to end."""
        self._stopping = True
        for call in self._running.values():
            if not call.answered and not call.rebooting:
                call.asked_to_stop = call.asked_to_stop or "stop"
                self._out.add(Interrupt(call.execution_id))
        return self._out.take()

    def abandon(self) -> list[Effect]:
        """The handlers' grace is over: answer for those that still run."""
        for call in self._running.values():
            if not call.answered and not call.rebooting and not call.action.policy.reruns:
                self._out.answer(call, interrupted())
                call.answered = True
                self._slots.overdue(call.execution_id)
        return self._out.take()

    @property
    def busy(self) -> bool:
        """Whether a handler runs that :meth:`stop` has asked to end."""
        return any(not c.answered and not c.rebooting for c in self._running.values())

    @property
    def unacknowledged(self) -> int:
        """Responses the broker has not acknowledged."""
        return len(self._out.outbox)

    def announcement(self) -> PublishEffect:
        """What the agent can do, to be retained by the broker."""
        announced = Announcement(self._version, tuple(action.description for action in self._registry))
        return PublishEffect(
            self.topics.actions(self.thing), encode_announcement(announced), retain=True, receipt=ANNOUNCEMENT
        )

    def withdrawal(self) -> PublishEffect:
        """Takes the announcement back."""
        return PublishEffect(self.topics.actions(self.thing), b"", retain=True)

    def presence(self, *, online: bool) -> PublishEffect:
        """Says that this thing has come, or goes."""
        return PublishEffect(self.topics.presence(self.thing), encode_presence(Presence(online=online)))

    # -- requests

    def _time(self, payload: bytes, now: float) -> None:
        try:
            self._clock.broker_says(decode_time(payload), now)
        except ProtocolError as error:
            self._out.note("warning", "time ignored", reason=str(error))

    def _request(self, execution_id: str, payload: bytes, now: float, wall: Wall) -> None:
        known = self._history.get(execution_id)
        if known is not None:
            self._out.note(
                "info", "request repeated", executionId=execution_id, answered=known.response is not None
            )
            if known.response is not None:
                self._out.send(self._out.outbox.put(execution_id, known.response))
            return
        try:
            request = decode_request(payload)
        except ProtocolError as error:
            text = f"{error.text} at {error.pointer}" if error.pointer else error.text
            self._out.refuse(execution_id, outcome.rejected(outcome.INVALID_REQUEST, text), now, 0.0)
            return
        action = self._registry.get(request.action)
        params = bytes(request.params)
        refusal = self._refusal(action, request.action, params)
        if refusal is not None or action is None:
            assert refusal is not None
            self._out.refuse(execution_id, refusal, request.timestamp, request.ttl)
            return
        call = Call(execution_id, action, params, request.timestamp, request.ttl, None)
        call.judge(self._clock, self._hold_until, now, wall)
        if call.deadline is not None and call.deadline <= now:
            self._out.refuse(execution_id, call.expired(), request.timestamp, request.ttl)
            return
        if not self._slots.within_rate(action.name, action.policy, now):
            busy = outcome.rejected(outcome.BUSY, f"more than {action.policy.rate} of {action.name}")
            self._out.refuse(execution_id, busy, request.timestamp, request.ttl)
            return
        self._out.record(
            Accepted(execution_id, action.name, params, request.timestamp, request.ttl, call.deadline),
            durable=action.policy.durable,
            flush=True,
        )
        self._waiting[execution_id] = call

    def _refusal(self, action: Action | None, name: str, params: bytes) -> CallOutcome | None:
        """Why the request is not taken on, by what does not depend on its age."""
        if action is None:
            known = [action.name for action in self._registry]
            return outcome.rejected(outcome.UNKNOWN_ACTION, hints.unknown_action(name, known))
        try:
            action.decode(params)
        except InvalidParamsError as error:
            return outcome.rejected(
                outcome.INVALID_PARAMS, f"{error.text} at {error.pointer or 'the params'}"
            )
        if stuck := self._slots.stuck(action.name, action.policy):
            return outcome.rejected(outcome.BUSY, stuck)
        if not self._limits.has_room(self._waiting.values(), len(params)):
            return outcome.rejected(outcome.BUSY, f"{len(self._waiting)} commands wait already")
        return None

    def _cancel(self, execution_id: str) -> None:
        waiting = self._waiting.pop(execution_id, None)
        if waiting is not None:
            self._out.answer(waiting, outcome.canceled("it had not begun"))
            return
        running = self._running.get(execution_id)
        if running is None or running.answered or running.rebooting:
            return
        if not running.asked_to_stop:
            running.asked_to_stop = "cancel"
            self._out.add(Interrupt(execution_id))

    # -- running

    def _start_ready(self, now: float, wall: Wall) -> None:
        for call in list(self._waiting.values()):
            call.judge(self._clock, self._hold_until, now, wall)
            if call.deadline is None:
                continue  # held
            if call.deadline <= now:
                del self._waiting[call.execution_id]
                self._out.answer(call, self._missed(call))
            elif self._may_start and self._slots.free(call.action.name, call.action.policy):
                del self._waiting[call.execution_id]
                self._start(call, now)

    def _missed(self, call: Call) -> CallOutcome:
        """The verdict on a call whose deadline has passed while it waited."""
        if call.attempt:
            return interrupted()
        stuck = self._slots.stuck(call.action.name, call.action.policy)
        return outcome.rejected(outcome.BUSY, stuck) if stuck else call.expired()

    @property
    def hung(self) -> bool:
        """Whether every place is held by a call that timed out."""
        return self._slots.hung

    @property
    def _may_start(self) -> bool:
        going_down = self._rebooting or any(call.rebooting for call in self._running.values())
        return not self._stopping and not going_down

    def _start(self, call: Call, now: float) -> None:
        assert call.deadline is not None
        policy = call.action.policy
        call.attempt += 1
        call.timeout_at = call.deadline if policy.timeout is None else now + policy.timeout
        call.at_work_at = now + AT_WORK_AFTER
        self._running[call.execution_id] = call
        self._slots.take(call.execution_id, call.action.name, policy)
        self._out.record(
            Started(call.execution_id, call.attempt), durable=policy.durable, flush=policy.reboots
        )
        timeout = call.timeout_at - now
        start = Start(call.execution_id, call.action.name, call.params, timeout, call.attempt, call.kept)
        self._out.add(start)

    def _time_out(self, call: Call) -> None:
        # A function cannot be killed: answer, and keep its place taken until it ends.
        late = outcome.failed(outcome.TIMEOUT, "the handler did not end in time")
        self._out.answer(call, not_rebooted("the device did not go down") if call.rebooting else late)
        call.rebooting = False
        call.answered = True
        was_hung = self._slots.hung
        self._slots.overdue(call.execution_id)
        self._out.add(Interrupt(call.execution_id))
        if self._slots.hung and not was_hung:
            self._out.note("warning", "every place is held by a call that timed out; only reads are answered")

    # -- after a restart

    def _recover_one(self, execution_id: str, entry: Entry, *, rebooted: bool, trusted: bool) -> None:
        accepted = entry.accepted
        action = None if accepted is None else self._registry.get(accepted.action)
        settled = settle(entry, action.policy if action else None, rebooted=rebooted, trusted=trusted)
        if isinstance(settled, bytes) or accepted is None or action is None:
            assert isinstance(settled, bytes)
            self._out.put(
                execution_id, settled, accepted.timestamp + accepted.ttl if accepted else 0.0, durable=True
            )
            self._out.note("warning", "interrupted by a restart", executionId=execution_id)
            return
        self._out.note("info", "taken up again", executionId=execution_id, attempt=settled + 1)
        self._waiting[execution_id] = Call(
            execution_id,
            action,
            accepted.params,
            accepted.timestamp,
            accepted.ttl,
            None if rebooted else accepted.deadline,
            attempt=settled,
            kept=entry.kept,
        )
