"""The state of each request that the agent has taken on. Pure.

A history is made of records, one per event; applying them in order gives the same
history again. The journal keeps the records, the session makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_agent.core.outcome import reason
from thingctl_protocol.messages import decode_response, encode_response

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEMBERED_MAX: Final = 1000
"""Executions remembered after the broker has acknowledged their response."""

REMEMBERED_BYTES_MAX: Final = 256 * 1024
"""Bytes of responses remembered with them; beyond, the oldest keep their status only."""

REMEMBERED_SECONDS: Final = 24 * 3600.0
"""How long past its TTL an execution is remembered, by the newest request's timestamp."""

KEPT_ALWAYS: Final = 100
"""Executions remembered however old: one request from the future must not make all others old."""

_SLIM: Final = 256
"""Bytes. A shorter response is not worth forgetting."""


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="A"):
    """A request was taken on. ``deadline``: time since boot at which it is stale, if that is known."""

    execution_id: str
    action: str
    params: bytes
    timestamp: float
    ttl: float
    deadline: float | None


class Started(msgspec.Struct, frozen=True, array_like=True, tag="S"):
    """Its handler is about to be called for the ``attempt``-th time."""

    execution_id: str
    attempt: int


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="K"):
    """Its handler wants to find ``value`` (encoded JSON) after a restart."""

    execution_id: str
    value: bytes


class Rebooting(msgspec.Struct, frozen=True, array_like=True, tag="B"):
    """Its handler has asked for a reboot. ``payload``: the response once the boot id is another."""

    execution_id: str
    payload: bytes


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="R"):
    """It has ended; ``payload`` is the response. ``expires``: Unix seconds, by the broker's clock."""

    execution_id: str
    expires: float
    payload: bytes


class Cleared(msgspec.Struct, frozen=True, array_like=True, tag="C"):
    """The broker has acknowledged the response."""

    execution_id: str


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="O"):
    """An agent started, in the boot with this id."""

    boot_id: str


class Closed(msgspec.Struct, frozen=True, array_like=True, tag="E"):
    """The agent stopped cleanly: all before this is on the disk."""


Record = Accepted | Started | Kept | Rebooting | Answered | Cleared | Opened | Closed


class Entry:
    """One execution as far as its records tell."""

    __slots__ = ("accepted", "attempt", "cleared", "durable", "expires", "kept", "rebooting", "response")

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable
        self.accepted: Accepted | None = None
        self.attempt = 0
        self.kept: bytes | None = None
        self.rebooting: Rebooting | None = None
        self.response: bytes | None = None
        self.expires = 0.0
        self.cleared = False


class History:
    """Entries by execution id, oldest first; bounded in number, bytes and age."""

    def __init__(
        self, remembered_max: int = REMEMBERED_MAX, remembered_bytes_max: int = REMEMBERED_BYTES_MAX
    ) -> None:
        self._entries: dict[str, Entry] = {}
        self._cleared: dict[str, None] = {}  # ids in the order of their clearing
        self._full: dict[str, int] = {}  # of these, the ones with a long response, and its length
        self._cleared_bytes = 0
        self._remembered_max = remembered_max
        self._remembered_bytes_max = remembered_bytes_max
        self._newest = 0.0
        self.boot_id = ""
        self.closed = False

    def get(self, execution_id: str) -> Entry | None:
        """What is known of an execution; ``None``: it was never seen, or is forgotten."""
        return self._entries.get(execution_id)

    def unanswered(self) -> list[tuple[str, Entry]]:
        """The entries without a response, oldest first."""
        return [(i, entry) for i, entry in self._entries.items() if entry.response is None]

    def unacknowledged(self) -> list[tuple[str, bytes]]:
        """The responses that the broker has not acknowledged, oldest first."""
        return [
            (i, entry.response)
            for i, entry in self._entries.items()
            if entry.response is not None and not entry.cleared
        ]

    def __len__(self) -> int:
        return len(self._entries)

    def apply(self, record: Record, *, durable: bool = True) -> None:
        """Take one record in; one that adds nothing to what is known is ignored."""
        self.closed = False
        match record:
            case Opened(boot_id):
                self.boot_id = boot_id
            case Closed():
                self.closed = True
            case Cleared(execution_id):
                self._clear(execution_id)
            case _:
                entry = self._entries.setdefault(record.execution_id, Entry(durable=durable))
                self._update(entry, record)

    def _update(self, entry: Entry, record: Accepted | Started | Kept | Rebooting | Answered) -> None:
        if entry.response is not None:
            return  # a terminal status never changes
        match record:
            case Accepted():
                entry.accepted = record
                self._newest = max(self._newest, record.timestamp)
            case Started():
                entry.attempt = record.attempt
            case Kept():
                entry.kept = record.value
            case Rebooting():
                entry.rebooting = record
            case Answered():
                entry.response, entry.expires = record.payload, record.expires or self._newest
                entry.accepted = entry.kept = entry.rebooting = None

    def _clear(self, execution_id: str) -> None:
        entry = self._entries.get(execution_id)
        if entry is None or entry.response is None or entry.cleared:
            return
        entry.cleared = True
        self._cleared[execution_id] = None
        if len(entry.response) > _SLIM:
            self._full[execution_id] = len(entry.response)
            self._cleared_bytes += len(entry.response)
        self._forget()

    def _forget(self) -> None:
        while self._cleared_bytes > self._remembered_bytes_max:
            execution_id = next(iter(self._full))
            self._cleared_bytes -= self._full.pop(execution_id)
            entry = self._entries[execution_id]
            assert entry.response is not None
            entry.response = _status_only(entry.response)
        while self._cleared:
            execution_id = next(iter(self._cleared))
            old = self._entries[execution_id].expires + REMEMBERED_SECONDS < self._newest
            if len(self._cleared) <= (KEPT_ALWAYS if old else self._remembered_max):
                break
            del self._cleared[execution_id], self._entries[execution_id]
            self._cleared_bytes -= self._full.pop(execution_id, 0)

    def merge(self, other: History) -> None:
        """Take in what another history knows. An end that is known here stands."""
        for execution_id, entry in other._entries.items():
            for record in _records(execution_id, entry):
                self.apply(record, durable=entry.durable)

    def snapshot(self) -> Iterator[Record]:
        """The records that make this history, as few as there can be."""
        yield Opened(self.boot_id)
        for execution_id, entry in self._entries.items():
            if entry.durable:
                yield from _records(execution_id, entry)


def _records(execution_id: str, entry: Entry) -> Iterator[Record]:
    if entry.response is not None:
        yield Answered(execution_id, entry.expires, entry.response)
        if entry.cleared:
            yield Cleared(execution_id)
        return
    if entry.accepted is not None:
        yield entry.accepted
    if entry.attempt:
        yield Started(execution_id, entry.attempt)
    if entry.kept is not None:
        yield Kept(execution_id, entry.kept)
    if entry.rebooting is not None:
        yield entry.rebooting


def _status_only(payload: bytes) -> bytes:
    return encode_response(
        decode_response(payload).status,
        reason=reason("RESULT_FORGOTTEN", "answered before; the device no longer keeps what it said"),
    )
