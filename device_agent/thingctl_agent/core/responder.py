"""What the session says and writes down, gathered as effects. Pure.

Each answer is a record first, a response second and a log line last, in this one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thingctl_agent.core.effects import Effect, LogLine, PublishEffect, Save
from thingctl_agent.core.history import Answered
from thingctl_agent.core.outbox import ResponseOutbox
from thingctl_agent.core.progress import Reporter, receipt

if TYPE_CHECKING:
    from thingctl_agent.core.history import History, Record
    from thingctl_agent.core.outcome import CallOutcome
    from thingctl_agent.core.pending import Call
    from thingctl_protocol.topics import Topics


class Answers:
    """The history, outbox and progress of one thing, and the effects they lead to."""

    def __init__(self, thing: str, topics: Topics, history: History) -> None:
        self._thing = thing
        self._topics = topics
        self._history = history
        self.outbox = ResponseOutbox()
        self.reporter = Reporter()
        self._effects: list[Effect] = []

    def adopt(self, history: History) -> None:
        """Go on with another history."""
        self._history = history

    def take(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def add(self, effect: Effect) -> None:
        """Add an effect of another kind."""
        self._effects.append(effect)

    def note(self, level: str, event: str, **fields: Any) -> None:
        """Say something in the log."""
        self._effects.append(LogLine(level, event, fields))

    def record(self, record: Record, *, flush: bool, durable: bool = True) -> None:
        """Remember an event, and if it is durable write it down."""
        self._history.apply(record, durable=durable)
        if durable:
            self._effects.append(Save(record, flush))

    def refuse(self, execution_id: str, result: CallOutcome, timestamp: float, ttl: float) -> None:
        """Answer a request that was not taken on."""
        self.put(execution_id, result.encode(), timestamp + ttl, durable=True)
        self.note("info", "refused", executionId=execution_id, **_shown(result))

    def answer(self, call: Call, result: CallOutcome) -> None:
        """Answer a request that was."""
        self.put(call.execution_id, result.encode(), call.expires, durable=call.action.policy.durable)
        name = call.action.name
        self.note("info", "answered", executionId=call.execution_id, action=name, **_shown(result))

    def put(self, execution_id: str, payload: bytes, expires: float, *, durable: bool) -> None:
        """Write a response down and have it published. ``expires``: Unix seconds, by the broker's clock."""
        self.reporter.drop(execution_id)
        self.record(Answered(execution_id, expires, payload), durable=durable, flush=True)
        self.send(self.outbox.put(execution_id, payload))

    def send(self, responses: list[tuple[str, bytes]]) -> None:
        """Publish what the outbox lets go."""
        for execution_id, payload in responses:
            topic = self._topics.response(self._thing, execution_id)
            self._effects.append(PublishEffect(topic, payload, receipt=execution_id))

    def progress(self, said: list[tuple[str, bytes]]) -> None:
        """Publish what the reporter lets go."""
        for execution_id, payload in said:
            topic = self._topics.response(self._thing, execution_id)
            self._effects.append(PublishEffect(topic, payload, receipt=receipt(execution_id)))


def _shown(result: CallOutcome) -> dict[str, str]:
    """The fields of a log line about an outcome."""
    code, text = (result.reason.reason_code, result.reason.reason_description) if result.reason else ("", "")
    return {"status": result.status, "reason": code, "text": text}
