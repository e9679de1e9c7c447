"""The law of an execution: every status it can have, and every move between them.

``TRANSITIONS`` is the one table. The broker's core, its stores and the agent read
it; none of them restates it.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from thingctl_protocol.errors import TransitionError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Status(StrEnum):
    """Where an execution stands. Fleets' words, and IN_PROGRESS from AWS IoT."""

    SENT = "SENT"
    """Accepted by the broker; the device has not spoken yet."""

    IN_PROGRESS = "IN_PROGRESS"
    """The device has said that it is at work. May be said again, with progress."""

    SUCCEEDED = "SUCCEEDED"
    """The device has done it."""

    FAILED = "FAILED"
    """The device tried and could not, or cannot tell how it ended."""

    REJECTED = "REJECTED"
    """The device refused: nothing was done."""

    TIMED_OUT = "TIMED_OUT"
    """No verdict came within the TTL. Only the broker says this."""

    CANCELED = "CANCELED"
    """Withdrawn before it was done."""


class Delivery(StrEnum):
    """How far the request got on its way to the device."""

    QUEUED = "QUEUED"
    """The thing is not connected or not subscribed."""

    PUBLISHED = "PUBLISHED"
    """Written to the thing's connection."""

    DELIVERED = "DELIVERED"
    """Acknowledged by the thing's MQTT client (PUBACK)."""

    STARTED = "STARTED"
    """The device has answered something: it has the request for certain."""


TERMINAL: Final[frozenset[Status]] = frozenset(
    {Status.SUCCEEDED, Status.FAILED, Status.REJECTED, Status.TIMED_OUT, Status.CANCELED},
)

TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        Status.SENT: TERMINAL | {Status.IN_PROGRESS},
        Status.IN_PROGRESS: TERMINAL | {Status.IN_PROGRESS},
        Status.SUCCEEDED: frozenset(),
        Status.FAILED: frozenset(),
        Status.REJECTED: frozenset(),
        Status.TIMED_OUT: frozenset(),
        Status.CANCELED: frozenset(),
    },
)
"""From each status, the ones it may become. A terminal status never changes."""

DEVICE_STATUSES: Final[frozenset[Status]] = frozenset(
    {Status.IN_PROGRESS, Status.SUCCEEDED, Status.FAILED, Status.REJECTED, Status.CANCELED},
)
"""What a device may say in a response. SENT and TIMED_OUT are the broker's alone."""


def advance(current: Status, to: Status) -> Status:
    """Return ``to`` if ``current`` may become it.

    >>> advance(Status.SENT, Status.SUCCEEDED)
    <Status.SUCCEEDED: 'SUCCEEDED'>

    Raises :class:`TransitionError` where ``TRANSITIONS`` has no such move.
    """
    if to not in TRANSITIONS[current]:
        raise TransitionError(f"an execution that is {current} cannot become {to}")
    return to
