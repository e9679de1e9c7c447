"""MQTT 5 reason codes in words, and whose fault they are. Pure."""

from __future__ import annotations

from typing import Final

NO_MATCHING_SUBSCRIBERS: Final = 0x10
FAILURE: Final = 0x80
SESSION_TAKEN_OVER: Final = 0x8E

_WORDS: Final = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "it does not speak MQTT 5",
    0x85: "it will not have this client id",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep-alive ran out",
    0x8E: "another client came with this client id",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x93: "Receive Maximum exceeded",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "ended by its administrator",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "it has no shared subscriptions",
    0x9F: "connection rate exceeded",
    0xA1: "it has no subscription identifiers",
    0xA2: "it has no wildcard subscriptions",
}

_FOR_GOOD: Final = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8F, 0x90, 0x9B, 0x9E, 0xA2})
"""What trying again does not mend: somebody has to change something."""


def words(code: int) -> str:
    """Say a reason code.

    >>> words(0x87)
    'not authorized (0x87)'
    """
    return f"{_WORDS.get(code, 'for a reason of its own')} (0x{code:02X})"


def is_for_good(code: int) -> bool:
    """Whether a refusal with this code stands until somebody changes something."""
    return code in _FOR_GOOD


class RequestRefused(Exception):
    """No link was to be had. ``text``: one sentence for people. ``for_good``: trying again is no use."""

    def __init__(self, text: str, *, for_good: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.for_good = for_good
