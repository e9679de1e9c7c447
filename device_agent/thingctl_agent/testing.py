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
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from thingctl_agent.core.effects import Effect, Interrupt, LogLine, PublishEffect, Save, Start
from thingctl_agent.core.history import History
from thingctl_agent.core.session import DeviceSession
from thingctl_agent.runtime.reports import HandlerReports
from thingctl_agent.runtime.workers import HandlerThreads
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.messages import encode_request
from thingctl_protocol.statuses import TERMINAL, Status
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_agent.core.history import Record
    from thingctl_agent.core.pending import Limits
    from thingctl_agent.handlers.registry import Registry


HOOK_WITHIN: Final = 10.0
"""Seconds for each function that is called at the agent's start or end."""


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
        self._thing = thing
        self._limits = limits
        self._ids = IdSource()
        self._boots = 1
        self._published: dict[str, list[dict[str, Any]]] = {}
        self._run = self._begin(History())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        action: str,
        params: Any = None,
        /,
        *,
        ttl: float = 60.0,
        age: float = 0.0,
        wait: float = 10.0,
        **named: Any,
    ) -> Reply:
        """Send a command and wait for its end. ``ttl``, ``age`` and ``wait`` in seconds.

        Params are given by name, or as one dict: then their names may be any.
        Raises :class:`TimeoutError` when there is no terminal status after ``wait``.
        """
        return self.wait(self.start(action, params, ttl=ttl, age=age, **named), wait)

    def start(
        self, action: str, params: Any = None, /, *, ttl: float = 60.0, age: float = 0.0, **named: Any
    ) -> str:
        """Send a command, ``age`` seconds old, and return its execution id. Params as for :meth:`send`."""
        execution_id = self._ids.make(time.time_ns() // 1_000_000, time.monotonic_ns())
        payload = encode_request(
            command_id=f"command-of-{execution_id}",
            action=action,
            params=json.dumps({**params, **named} if named and params else named or params or {}).encode(),
            timestamp=0,
            ttl=1,
        )
        stamp = f'"timestamp":{time.time() - age!r},"ttl":{ttl!r}}}'.encode()
        self.deliver(execution_id, payload[: payload.rindex(b'"timestamp"')] + stamp)
        return execution_id

    def deliver(self, execution_id: str, payload: bytes) -> None:
        """Hand a request over as it stands, to try a repeated or a malformed one."""
        self._run.drain()
        self._run.message(Topics.request, execution_id, payload)

    def cancel(self, execution_id: str) -> None:
        """Ask the device to stop an execution."""
        self._run.message(Topics.cancel, execution_id, b"{}")

    def reply(self, execution_id: str) -> Reply:
        """What the device has said of it so far."""
        self._run.drain()
        return Reply(list(self._published.get(execution_id, ())))

    def wait(self, execution_id: str, seconds: float = 10.0) -> Reply:
        """Wait for the end of an execution.

        Raises :class:`TimeoutError`: after ``seconds``, and without waiting for an execution that
        ends with a restart of the device, which is :meth:`reboot`.
        """
        deadline = time.monotonic() + seconds
        while (reply := self.reply(execution_id)).status not in TERMINAL:
            if self._run.session.awaits_reboot(execution_id):
                raise TimeoutError(f"it ends with a restart of the device; call device.reboot(): {reply!r}")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no end after {seconds} s: {reply!r}")
            self._run.turn(deadline - time.monotonic())
        return reply

    def wait_for_progress(self, execution_id: str, seconds: float = 10.0) -> Reply:
        """Wait until the device has said anything of it; raises :class:`TimeoutError`."""
        deadline = time.monotonic() + seconds
        while not (reply := self.reply(execution_id)).responses:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not a word after {seconds} s")
            self._run.turn(deadline - time.monotonic())
        return reply

    def wait_for_reboot(self, execution_id: str, seconds: float = 10.0) -> None:
        """Wait until its handler has recorded that the device restarts; raises :class:`TimeoutError`."""
        deadline = time.monotonic() + seconds
        while not self._run.session.goes_down(execution_id):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no restart after {seconds} s: {self.reply(execution_id)!r}")
            self._run.turn(deadline - time.monotonic())

    def restart(self) -> None:
        """Kill the agent and start it again, in the same boot: what its journal has is taken up."""
        self._run.drain()
        self._run.workers.interrupt_all()  # a thread cannot be killed; what it reports is not heard
        history = History()
        for record in self.records:
            history.apply(record)
        history.boot_id = self._run.boot_id
        self._run = self._begin(history)

    def reboot(self) -> None:
        """Restart the device: as :meth:`restart`, with another boot id."""
        self._boots += 1
        self.restart()

    def close(self) -> None:
        """Ask handlers that still run to stop, and call what ``on_stop`` has registered.

        A function that does not look is left alone.
        """
        self._run.do(self._run.session.stop())
        self._run.workers.run_hooks(reversed(self._registry.hooks("stop")), HOOK_WITHIN)

    def _begin(self, history: History) -> _Run:
        session = DeviceSession(self._thing, self._registry, history, limits=self._limits)
        run = _Run(self._registry, session, f"boot-{self._boots}", self)
        run.begin()
        return run

    # -- for the run

    def published(self, execution_id: str, payload: bytes) -> None:
        """The agent has said something of an execution."""
        self._published.setdefault(execution_id, []).append(json.loads(payload))


class _Run:
    """One run of an agent: a new one begins with each restart."""

    def __init__(self, registry: Registry, session: DeviceSession, boot_id: str, device: Device) -> None:
        self.session = session
        self.boot_id = boot_id
        self._registry = registry
        self._device = device
        self._events: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        reports = HandlerReports(self._events.put, session, self.do, time.monotonic, time.time)
        self.workers = HandlerThreads(reports, reports.finished, lambda _, error: device.errors.append(error))

    def begin(self) -> None:
        """Take up what the journal has, and connect."""
        self.workers.run_hooks(self._registry.hooks("start"), HOOK_WITHIN)
        now = time.monotonic()
        self.do(self.session.recover(self.boot_id, now, time.time, trusted=True))
        self.do(self.session.connected(now))
        self.do(self.session.subscribed(now))

    def message(self, topic: Callable[[Topics, str, str], str], execution_id: str, payload: bytes) -> None:
        """A message arrives."""
        name = topic(self.session.topics, self.session.thing, execution_id)
        self.do(self.session.message(name, payload, time.monotonic(), time.time, retain=False))

    # -- the loop

    def turn(self, seconds: float) -> None:
        """Wait for one event, but not past the session's next time-out, and do what follows."""
        due = self.session.next_due()
        if due is not None:
            seconds = min(seconds, due - time.monotonic())
        try:
            event = self._events.get(timeout=max(seconds, 0.0)) if seconds > 0 else self._events.get_nowait()
            event()
        except queue.Empty:
            pass
        self.do(self.session.tick(time.monotonic(), time.time))

    def drain(self) -> None:
        """Do what has happened so far."""
        for _ in range(1 + self._events.qsize()):
            self.turn(0.0)

    def do(self, effects: Iterable[Effect]) -> set[str]:
        """Do the effects in order; returns the executions of which a record could not be written."""
        for effect in effects:
            match effect:
                case Save(record):
                    self._device.records.append(record)
                case PublishEffect(topic, payload, _, receipt):
                    self._device.published(topic.split("/")[-2], payload)
                    if receipt is not None:
                        self._events.put(lambda receipt=receipt: self.do(self.session.acknowledged(receipt)))  # type: ignore[misc]
                case Start(_, action):
                    found = self._registry.get(action)
                    assert found is not None
                    self.workers.start(effect, found)
                case Interrupt(execution_id):
                    self.workers.interrupt(execution_id)
                case LogLine():
                    pass
        return set()
