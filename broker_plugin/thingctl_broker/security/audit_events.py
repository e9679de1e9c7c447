"""What the audit log records, and how the rest of the broker hands it over."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Event(StrEnum):
    """What is written down."""

    STARTED = "broker.started"
    STOPPED = "broker.stopped"
    COMMAND_SENT = "command.sent"
    COMMAND_CANCEL = "command.cancel"
    COMMAND_ENDED = "command.ended"
    COMMAND_LATE = "command.late"
    THING_ADDED = "thing.added"
    THING_CHANGED = "thing.changed"
    THING_REMOVED = "thing.removed"
    THING_PASSWORD = "thing.password"  # noqa: S105 the name of an event
    TYPE_PUT = "type.put"
    TYPE_REMOVED = "type.removed"
    TOKEN_MADE = "token.made"  # noqa: S105
    TOKEN_RENEWED = "token.renewed"  # noqa: S105
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    CLIENT_KICKED = "client.kicked"
    CODE_MADE = "signIn.code"
    SIGNED_IN = "signIn.begun"
    LOST = "audit.lost"
    NEW_CHAIN = "audit.newChain"


class Note(Protocol):
    """What writes down what the caller of this moment does."""

    def __call__(self, event: Event, *, thing: str = "", detail: str = "") -> None:
        """Write it down."""
        ...


def note_nothing(event: Event, *, thing: str = "", detail: str = "") -> None:
    """Write nothing down."""
