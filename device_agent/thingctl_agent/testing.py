"""Call actions as a broker would, with no broker: for the tests of your handlers.

::

    from thingctl_agent.testing import Device

    def test_the_lock_refuses_while_the_door_is_open() -> None:
        with Device(agent) as device:
            reply = device.send("unlock", seconds=5)
            assert reply.status == "REJECTED"
            assert reply.reason_code == "DOOR_OPEN"

What answers is the agent's own session, with its validation, policies, time-outs and
masking; only MQTT and the disk are missing. Handlers run in threads as they do on a device.
"""

from __future__ import annotations

import json
import queue
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from thingctl_agent.effects import Effect, Interrupt, Note, Publish, Save, Start
from thingctl_agent.history import History
from thingctl_agent.session import Session
from thingctl_agent.workers import Workers
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.messages import encode_request
from thingctl_protocol.statuses import TERMINAL, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_agent.calls import Limits
    from thingctl_agent.history import Record
    from thingctl_agent.outcome import Outcome
    from thingctl_agent.registry import Registry


class Reply:
    """What a device said of one execution."""

    def __init__(self, responses: list[dict[str, Any]]) -> None:
        """``responses``: the payloads in the order they were published."""
        self.responses = responses
        self._last: dict[str, Any] = responses[-1] if responses else {"status": Status.SENT}

    @property
    def status(self) -> str:
        """``SUCCEEDED``, ``FAILED``, ``REJECTED``, ``CANCELED``; or ``SENT``, ``IN_PROGRESS`` so far."""
        return str(self._last["status"])

    @property
    def result(self) -> Any:
        """What the handler returned, as the operator would get it: through JSON."""
        return self._last.get("result")

    @property
    def reason_code(self) -> str:
        """The word for programs, or ``""``."""
        return str(self._last.get("statusReason", {}).get("reasonCode", ""))

    @property
    def reason(self) -> str:
        """The sentence for people, or ``""``."""
        return str(self._last.get("statusReason", {}).get("reasonDescription", ""))

    @property
    def progress(self) -> list[dict[str, Any]]:
        """What the handler told while it was at work. Some may be left out: it is rate-limited."""
        return [r["progress"] for r in self.responses if "progress" in r]

    def __repr__(self) -> str:
        return f"Reply({self._last!r})"


class HasActions(Protocol):
    """What can be put on a device: an :class:`~thingctl_agent.agent.Agent`."""

    @property
    def registry(self) -> Registry:
        """Its actions."""
        ...


class Device:
    """A device with an agent on it, reachable by function calls.

    ``errors``: the exceptions that handlers raised and the operator was not shown.
    ``records``: what a device would have written to its journal.
    """

    def __init__(self, agent: HasActions, thing: str = "test-1", *, limits: Limits | None = None) -> None:
        self.errors: list[BaseException] = []
        self.records: list[Record] = []
        self._registry = agent.registry
        self._ids = IdSource()
        self._published: dict[str, list[dict[str, Any]]] = {}
        self._events: queue.SimpleQueue[Callable[[], list[Effect]]] = queue.SimpleQueue()
        self._session = Session(thing, agent.registry, History(), limits=limits)
        self._workers = Workers(self, self._on_finished, lambda _, error: self.errors.append(error))
        self._do(self._session.connected(time.monotonic()))
        self._do(self._session.subscribed(time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, action: str, /, *, ttl: float = 60.0, wait: float = 10.0, **params: Any) -> Reply:
        """Send a command and wait for its end. ``ttl`` and ``wait`` in seconds.

        For params with those two names, use :meth:`start`. Raises :class:`TimeoutError`
        when there is no terminal status after ``wait``.
        """
        return self.wait(self.start(action, params, ttl=ttl), wait)

    def start(self, action: str, params: Any = None, *, ttl: float = 60.0, age: float = 0.0) -> str:
        """Send a command, ``age`` seconds old, and return its execution id."""
        execution_id = self._ids.make(time.time_ns() // 1_000_000, time.monotonic_ns())
        payload = encode_request(
            command_id=f"command-of-{execution_id}",
            action=action,
            params=json.dumps({} if params is None else params).encode(),
            timestamp=0,
            ttl=1,
        )
        stamp = f'"timestamp":{time.time() - age!r},"ttl":{ttl!r}}}'.encode()
        self.deliver(execution_id, payload[: payload.rindex(b'"timestamp"')] + stamp)
        return execution_id

    def deliver(self, execution_id: str, payload: bytes) -> None:
        """Hand a request over as it stands, to try a repeated or a malformed one."""
        self._drain()
        topic = self._session.topics.request(self._session.thing, execution_id)
        self._do(self._session.message(topic, payload, time.monotonic(), time.time, retain=False))

    def cancel(self, execution_id: str) -> None:
        """Ask the device to stop an execution."""
        topic = self._session.topics.cancel(self._session.thing, execution_id)
        self._do(self._session.message(topic, b"{}", time.monotonic(), time.time, retain=False))

    def reply(self, execution_id: str) -> Reply:
        """What the device has said of it so far."""
        self._drain()
        return Reply(list(self._published.get(execution_id, ())))

    def wait(self, execution_id: str, seconds: float = 10.0) -> Reply:
        """Wait for the end of an execution; raises :class:`TimeoutError`."""
        deadline = time.monotonic() + seconds
        while (reply := self.reply(execution_id)).status not in TERMINAL:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no end after {seconds} s: {reply!r}")
            self._turn(deadline - time.monotonic())
        return reply

    def wait_for_progress(self, execution_id: str, seconds: float = 10.0) -> Reply:
        """Wait until the device has said anything of it; raises :class:`TimeoutError`."""
        deadline = time.monotonic() + seconds
        while not (reply := self.reply(execution_id)).responses:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not a word after {seconds} s")
            self._turn(deadline - time.monotonic())
        return reply

    def close(self) -> None:
        """Ask handlers that still run to stop. A function that does not look is left alone."""
        self._do(self._session.stop())

    # -- for the workers

    def progress(self, execution_id: str, percent: float | None, message: str | None) -> None:
        """A handler says how far it has come."""
        self._events.put(lambda: self._session.progress(execution_id, percent, message, time.monotonic()))

    def save(self, execution_id: str, value: bytes) -> None:
        """A handler wants a value kept."""
        self._events.put(lambda: self._session.keep(execution_id, value))

    def _on_finished(self, execution_id: str, outcome: Outcome) -> None:
        self._events.put(lambda: self._session.finished(execution_id, outcome, time.monotonic(), time.time))

    # -- the loop

    def _turn(self, seconds: float) -> None:
        """Wait for one event, but not past the session's next time-out, and do what follows."""
        due = self._session.next_due()
        if due is not None:
            seconds = min(seconds, due - time.monotonic())
        try:
            event = self._events.get(timeout=max(seconds, 0.0)) if seconds > 0 else self._events.get_nowait()
            self._do(event())
        except queue.Empty:
            pass
        self._do(self._session.tick(time.monotonic(), time.time))

    def _drain(self) -> None:
        self._turn(0.0)
        while not self._events.empty():
            self._turn(0.0)

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Save(record):
                    self.records.append(record)
                case Publish(topic, payload, _, receipt):
                    self._published.setdefault(topic.split("/")[-2], []).append(json.loads(payload))
                    if receipt is not None:
                        self._events.put(lambda receipt=receipt: self._session.acknowledged(receipt))  # type: ignore[misc]
                case Start(_, action):
                    found = self._registry.get(action)
                    assert found is not None
                    self._workers.start(effect, found)
                case Interrupt(execution_id):
                    self._workers.interrupt(execution_id)
                case Note():
                    pass
