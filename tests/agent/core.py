"""A session with a clock turned by hand, for tests of what the agent decides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from thingctl_agent.core.effects import Effect, Interrupt, LogLine, PublishEffect, Save, Start
from thingctl_agent.core.history import History, Record
from thingctl_agent.core.outcome import CallOutcome, succeeded
from thingctl_agent.core.pending import Limits
from thingctl_agent.core.session import DeviceSession
from thingctl_agent.handlers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

THING = "t"
UNIX = 1_700_000_000.0
"""The broker's clock when ``now`` is 0."""


def registry(**policies: dict[str, Any]) -> Registry:
    """Actions ``a`` and ``b`` without options, and the ones given."""
    made = Registry()
    for name in ("a", "b"):
        if name not in policies:
            made.add(lambda: None, name)
    for name, options in policies.items():
        made.add(lambda: None, name, **options)
    return made


class Core:
    """Feeds a session and keeps what comes out."""

    def __init__(
        self,
        actions: Registry | None = None,
        *,
        history: History | None = None,
        limits: Limits | None = None,
        wall: bool = True,
        connected: bool = True,
    ) -> None:
        self.now = 100.0
        self.knows_wall = wall
        self.history = history or History()
        self.session = DeviceSession(THING, actions or registry(), self.history, limits=limits)
        self.effects: list[Effect] = []
        self.records: list[Record] = []
        if connected:
            self.connect()

    def wall(self) -> float | None:
        return UNIX + self.now if self.knows_wall else None

    def take(self, effects: Iterable[Effect]) -> list[Effect]:
        taken = list(effects)
        self.effects += taken
        self.records += [e.record for e in taken if isinstance(e, Save)]
        return taken

    def connect(self) -> list[Effect]:
        taken = self.take(self.session.connected(self.now))
        self.take(self.session.subscribed(self.now))
        return taken

    def disconnect(self) -> None:
        self.take(self.session.disconnected())

    def recover(self, boot_id: str = "boot-1", *, trusted: bool = True) -> list[Effect]:
        return self.take(self.session.recover(boot_id, self.now, self.wall, trusted=trusted))

    def request(
        self,
        execution_id: str,
        action: str = "a",
        params: Any = None,
        *,
        ttl: float = 60,
        age: float = 0,
        retain: bool = False,
    ) -> list[Effect]:
        payload = {
            "commandId": "c",
            "action": action,
            "params": params or {},
            "timestamp": UNIX + self.now - age,
            "ttl": ttl,
        }
        return self.message("request", execution_id, json.dumps(payload).encode(), retain=retain)

    def cancel(self, execution_id: str) -> list[Effect]:
        return self.message("cancel", execution_id, b"{}")

    def message(self, kind: str, execution_id: str, payload: bytes, *, retain: bool = False) -> list[Effect]:
        topic = f"$emqx/commands/things/{THING}/executions/{execution_id}/{kind}"
        return self.take(self.session.message(topic, payload, self.now, self.wall, retain=retain))

    def broker_time(self, skew: float = 0.0) -> list[Effect]:
        payload = json.dumps({"timestamp": UNIX + self.now + skew}).encode()
        topic = f"$emqx/commands/things/{THING}/time"
        return self.take(self.session.message(topic, payload, self.now, self.wall, retain=False))

    def finish(self, execution_id: str, outcome: CallOutcome | None = None) -> list[Effect]:
        return self.take(self.session.finished(execution_id, outcome or succeeded(None), self.now, self.wall))

    def acknowledge(self, execution_id: str) -> list[Effect]:
        return self.take(self.session.acknowledged(execution_id))

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass, ticking whenever the session wants it."""
        until, taken = self.now + seconds, []
        while (due := self.session.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            taken += self.take(self.session.tick(self.now, self.wall))
        self.now = until
        return taken


def responses(effects: Iterable[Effect], execution_id: str | None = None) -> list[dict[str, Any]]:
    """The responses among some effects."""
    return [
        json.loads(e.payload)
        for e in effects
        if isinstance(e, PublishEffect)
        and e.topic.endswith("/response")
        and (execution_id is None or e.topic.split("/")[-2] == execution_id)
    ]


def verdicts(effects: Iterable[Effect], execution_id: str | None = None) -> list[str]:
    """``SUCCEEDED``, ``REJECTED BUSY`` and so on."""
    return [
        " ".join([r["status"], *([r["statusReason"]["reasonCode"]] if "statusReason" in r else [])])
        for r in responses(effects, execution_id)
        if r["status"] != "IN_PROGRESS"
    ]


def started(effects: Iterable[Effect]) -> list[str]:
    return [e.execution_id for e in effects if isinstance(e, Start)]


def interrupted(effects: Iterable[Effect]) -> list[str]:
    return [e.execution_id for e in effects if isinstance(e, Interrupt)]


def notes(effects: Iterable[Effect]) -> list[str]:
    return [e.event for e in effects if isinstance(e, LogLine)]


def saved(effects: Iterable[Effect]) -> list[tuple[str, bool]]:
    return [(type(e.record).__name__, e.flush) for e in effects if isinstance(e, Save)]


def restarted(
    core: Core,
    actions: Registry | None = None,
    *,
    boot_id: str = "boot-1",
    trusted: bool = True,
    wall: bool = True,
) -> Core:
    """What a new agent does with the records of an old one."""
    history = History()
    history.boot_id = "boot-1"
    for record in core.records:
        history.apply(record)
    new = Core(actions or core.session._registry, history=history, connected=False, wall=wall)
    new.now = core.now
    new.recover(boot_id, trusted=trusted)
    return new
