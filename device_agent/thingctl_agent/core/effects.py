"""What the session wants done. The loop does it, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from thingctl_agent.core.history import Record


class Save(NamedTuple):
    """Write a record. ``flush``: before anything that follows is done.

    When it cannot be written, what follows for the same execution is not done, and
    the session learns that by :meth:`~thingctl_agent.core.session.DeviceSession.unsaved`.
    """

    record: Record
    flush: bool


class PublishEffect(NamedTuple):
    """Publish with QoS 1. ``receipt``: hand it back when the broker has acknowledged."""

    topic: str
    payload: bytes
    retain: bool = False
    receipt: str | None = None


class Start(NamedTuple):
    """Call a handler. ``timeout``: seconds until the session will ask it to stop."""

    execution_id: str
    action: str
    params: bytes
    timeout: float | None
    attempt: int
    saved: bytes | None


class Interrupt(NamedTuple):
    """Ask a running handler to stop."""

    execution_id: str


class LogLine(NamedTuple):
    """Say something in the log. ``level``: a method of the logger."""

    level: str
    event: str
    fields: dict[str, Any]


Effect = Save | PublishEffect | Start | Interrupt | LogLine
