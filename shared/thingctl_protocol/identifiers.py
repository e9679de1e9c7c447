"""Names of things and actions, and the ids of commands and executions.

Ids are UUIDv7 (RFC 9562 section 5.7): their text sorts by the time of creation,
which keeps indexes and SQLite pages dense.
"""

from __future__ import annotations

import re
from typing import Final

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import ACTION_MAX, ID_MAX, THING_MAX

_THING: Final = re.compile(rf"[A-Za-z0-9:_.-]{{1,{THING_MAX}}}")
_ACTION: Final = re.compile(rf"[A-Za-z0-9:_./-]{{1,{ACTION_MAX}}}")
_ID: Final = re.compile(rf"[A-Za-z0-9:_.-]{{1,{ID_MAX}}}")
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SEQUENCES: Final = 1 << 12


def is_thing_name(text: str) -> bool:
    """Whether ``text`` can name a thing: ``[A-Za-z0-9:_.-]{1,128}``."""
    return _THING.fullmatch(text) is not None


def check_thing_name(text: str, pointer: str = "") -> str:
    """Return ``text`` if it can name a thing; else raise :class:`ProtocolError`."""
    if not is_thing_name(text):
        raise ProtocolError(
            f"{_shown(text)} can't name a thing: 1 to {THING_MAX} of the characters A-Z a-z 0-9 : _ . -",
            pointer,
        )
    return text


def is_action_name(text: str) -> bool:
    """Whether ``text`` can name an action: ``[A-Za-z0-9:_./-]{1,128}``."""
    return _ACTION.fullmatch(text) is not None


def check_action_name(text: str, pointer: str = "") -> str:
    """Return ``text`` if it can name an action; else raise :class:`ProtocolError`."""
    if not is_action_name(text):
        raise ProtocolError(
            f"{_shown(text)} can't name an action: 1 to {ACTION_MAX} of the characters A-Z a-z 0-9 : _ . - /",
            pointer,
        )
    return text


def is_id(text: str) -> bool:
    """Whether ``text`` can stand as an id in a topic.

    Wider than UUIDs, because an agent of ours may serve a broker that is not.
    """
    return _ID.fullmatch(text) is not None


THING_PATTERN: Final = _THING.pattern
ACTION_PATTERN: Final = _ACTION.pattern
ID_PATTERN: Final = _ID.pattern
UUID7_PATTERN: Final = _UUID7.pattern
"""Regular expressions of whole names and ids, without anchors."""


def is_uuid7(text: str) -> bool:
    """Whether ``text`` is a UUIDv7 in lower case, as :class:`IdSource` makes them."""
    return _UUID7.fullmatch(text) is not None


class IdSource:
    """Makes UUIDv7s that strictly increase, however often it is asked.

    Pure: the caller brings the time and the randomness. Within one millisecond, and
    when the wall clock steps back, a 12-bit sequence counts on (RFC 9562 section 6.2,
    method 1); when it is full, the id's millisecond moves ahead of the clock.
    """

    __slots__ = ("_head", "_millisecond", "_sequence")

    def __init__(self) -> None:
        self._millisecond = 0
        self._sequence = 0
        self._head = _head(0)

    def make(self, unix_ms: int, entropy: int) -> str:
        """Return the next id, e.g. ``0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f``.

        ``unix_ms``: milliseconds since 1970. ``entropy``: at least 62 random bits.
        """
        self._sequence += 1
        if unix_ms > self._millisecond:
            self._begin(unix_ms, 0)
        elif self._sequence == _SEQUENCES:
            self._begin(self._millisecond + 1, 0)
        return "%s%03x-%04x-%012x" % (  # noqa: UP031 an f-string takes longer, and every command pays for it
            self._head,
            self._sequence,
            0x8000 | entropy >> 48 & 0x3FFF,
            entropy & 0xFFFFFFFFFFFF,
        )

    def _begin(self, millisecond: int, sequence: int) -> None:
        self._millisecond, self._sequence = millisecond, sequence
        self._head = _head(millisecond)

    def continue_after(self, last_id: str) -> None:
        """Make no id that sorts before ``last_id`` (read back from a store at start).

        Raises :class:`ProtocolError` when it is no UUIDv7.
        """
        if not is_uuid7(last_id):
            raise ProtocolError(f"{_shown(last_id)} is not a UUIDv7")
        digits = last_id.replace("-", "")
        last = int(digits[:12], 16), int(digits[13:16], 16)
        if last > (self._millisecond, self._sequence):
            self._begin(*last)


def _head(millisecond: int) -> str:
    return f"{millisecond >> 16 & 0xFFFFFFFF:08x}-{millisecond & 0xFFFF:04x}-7"


def _shown(text: str) -> str:
    """``text`` as it may stand in a message to people: quoted, escaped, cut."""
    return ascii(text if len(text) <= 80 else text[:80] + "…")
