"""One execution and its rules.

Pure: no clock, no loop, no socket, no logger. Every method takes the time:
``now`` is monotonic time (seconds) and is what deadlines are held against; ``at`` is
Unix seconds and is only ever shown. All times of one execution lie on one line: the wall
clock at its creation, continued by the monotonic clock (:meth:`Execution.when`).

Which status may follow which is ``thingctl_protocol.statuses.TRANSITIONS``.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from thingctl_protocol.messages import Progress, StatusReason, encode_request
from thingctl_protocol.statuses import TERMINAL, Delivery, Status, advance

if TYPE_CHECKING:
    from thingctl_protocol.messages import Response


CLOCK_SET: Final = 0.25
"""Seconds by which the wall clock must be off the monotonic clock to count as set."""


class Storage(Enum):
    """How a store keeps a field of an execution."""

    ONCE = auto()
    """Written with the first record, and never again. A new one is declared behind those that are there."""

    STATE = auto()
    """Written with each change."""

    JOURNAL_STATE = auto()
    """The same, by the journal of one broker alone."""


ONCE: Final = Storage.ONCE
STATE: Final = Storage.STATE
JOURNAL_STATE: Final = Storage.JOURNAL_STATE


class Outcome(Enum):
    """What a response did to its execution."""

    APPLIED = auto()
    """It moved the execution, or its progress, on."""

    REPEATED = auto()
    """It says nothing new: the same verdict again, or progress that arrived behind the verdict."""

    LATE = auto()
    """It came after TIMED_OUT or CANCELED and is kept beside it."""

    CONFLICTING = auto()
    """It contradicts the verdict that stands. Counted, never applied."""


class Cancel(Enum):
    """What a wish to cancel did."""

    DONE = auto()
    """CANCELED: the request had never left."""

    REQUESTED = auto()
    """The device must be asked; its verdict decides."""

    PENDING = auto()
    """The device has been asked before."""

    ENDED = auto()
    """Nothing to cancel: the status is terminal."""


class Late(msgspec.Struct, frozen=True, gc=False):
    """What the device said after the broker had closed the execution. ``at``: Unix seconds."""

    status: Status
    at: float
    delay_seconds: float
    result: bytes | None = None
    reason: StatusReason | None = None


class Execution(msgspec.Struct, gc=False):
    """One command on one thing.

    ``params`` and ``result`` are encoded JSON. A time that is None has not come. A field's annotation says
    how stores keep it (:class:`Storage`); without one it is the key, or is worked out anew.
    The collector need not look inside (``gc=False``): nothing here can form a cycle.
    """

    execution_id: str
    command_id: Annotated[str, ONCE]
    thing: Annotated[str, ONCE]
    action: Annotated[str, ONCE]
    params: Annotated[bytes, ONCE]
    ttl: Annotated[int, ONCE]
    """Seconds from creation."""
    created_at: Annotated[float, ONCE]
    deadline: float
    """Monotonic: TTL counts from creation on the broker's own clock."""
    requested_by: Annotated[str, ONCE] = ""
    """The name of the API token that sent it."""
    idempotency_key: Annotated[str, ONCE] = ""
    """What the caller named the command by, to send it again safely."""
    fingerprint: Annotated[str, ONCE] = ""
    """Of the whole command, when it has a key: the same key must mean the same command."""
    status: Status = Status.SENT
    result: Annotated[bytes | None, STATE] = None
    reason: Annotated[StatusReason | None, STATE] = None
    progress: Annotated[Progress | None, STATE] = None
    late: Annotated[Late | None, STATE] = None
    attempts: Annotated[int, STATE] = 0
    """How often the request was written to a connection."""
    conflicts: Annotated[int, STATE] = 0
    """Responses that contradicted the verdict."""
    published_at: Annotated[float | None, STATE] = None
    delivered_at: Annotated[float | None, STATE] = None
    started_at: Annotated[float | None, STATE] = None
    """When the device first answered anything."""
    cancel_wanted_at: Annotated[float | None, JOURNAL_STATE] = None
    """When an operator asked for a cancel that is kept first and made then."""
    cancel_requested_at: Annotated[float | None, STATE] = None
    cancel_grace: Annotated[float | None, STATE] = None
    cancel_deadline: float | None = None
    """Monotonic: how long the device may take over its verdict on a cancel."""
    ended_at: Annotated[float | None, STATE] = None
    post_back_uri: Annotated[str, ONCE] = ""
    """Where to tell how it ended, if its sender wants that."""
    untold: Annotated[bool, STATE] = False
    """True while a notification of the end, or of a late response, is still to be sent."""
    kept: bool = False
    """Whether the journal has a record of it already."""

    @property
    def is_terminal(self) -> bool:
        """Whether the status can never change again."""
        return self.status in TERMINAL

    @property
    def at_work_at(self) -> float | None:
        """When the device said that its handler was at work; None: its first answer was the verdict."""
        at, late = self.started_at, self.late
        if at is None or self.progress is not None:
            return at
        if self.is_terminal and at == self.ended_at:
            return None
        return None if late is not None and late.status in TERMINAL and at == late.at else at

    @property
    def delivery(self) -> Delivery:
        """How far the request is known to have got."""
        if self.started_at is not None:
            return Delivery.STARTED
        if self.delivered_at is not None:
            return Delivery.DELIVERED
        return Delivery.QUEUED if self.published_at is None else Delivery.PUBLISHED

    @property
    def retry_safe(self) -> bool:
        """Whether sending the command again cannot make it run twice: it never left.

        A device that has answered has the request, whatever is on record of its leaving.
        """
        return self.published_at is None and self.started_at is None

    @property
    def next_deadline(self) -> float:
        """When, by monotonic time, the execution must be looked at again."""
        return self.deadline if self.cancel_deadline is None else min(self.deadline, self.cancel_deadline)

    @property
    def created(self) -> float:
        """Monotonic time of its creation."""
        return self.deadline - self.ttl

    def when(self, now: float) -> float:
        """Unix seconds of the moment ``now`` on the execution's own line; setting a clock moves none."""
        return self.created_at + (now - self.created)

    def is_restamped(self, now: float, unix: float) -> bool:
        """Whether the wall clock (``unix``) has been set since its creation."""
        return abs(self.when(now) - unix) > CLOCK_SET

    def request(self, now: float, unix: float) -> bytes:
        """The request, as it goes to the thing now.

        Its timestamp is the creation by the wall clock of this moment (``unix``), so its age is
        right for a device that knows that clock, also after it was set.
        """
        created_at = unix - (now - self.created) if self.is_restamped(now, unix) else self.created_at
        return encode_request(
            command_id=self.command_id,
            action=self.action,
            params=self.params,
            timestamp=int(created_at),
            ttl=self.ttl,
        )

    def published(self, at: float) -> None:
        """Note that the request was written to the thing's connection."""
        self.attempts += 1
        if self.published_at is None:
            self.published_at = at

    def delivered(self, at: float) -> bool:
        """Note the PUBACK; return whether that was news."""
        if self.delivered_at is not None:
            return False
        self.delivered_at = at
        return True

    def respond(self, response: Response, at: float) -> Outcome:
        """Take in what the device says."""
        result = bytes(response.result) or None
        if self.is_terminal:
            return self._respond_after_the_end(response, result, at)
        self.status = advance(self.status, response.status)
        if self.started_at is None:
            self.started_at = at
        if response.progress is not None:
            self.progress = response.progress
        if response.status in TERMINAL:
            self.result = result
            self.reason = response.status_reason  # an earlier report's does not explain the verdict
            self.ended_at = at
        elif response.status_reason is not None:
            self.reason = response.status_reason
        return Outcome.APPLIED

    def _respond_after_the_end(self, response: Response, result: bytes | None, at: float) -> Outcome:
        reason = response.status_reason
        same = response.status is self.status and result == self.result
        if same and self.started_at is not None and reason == self.reason:
            return Outcome.REPEATED
        if self.status not in CLOSED_BY_US:
            if response.status not in TERMINAL:
                return Outcome.REPEATED
            self.conflicts += 1
            return Outcome.CONFLICTING
        late = self.late
        if late is not None:
            if (late.status, late.result, late.reason) == (response.status, result, reason):
                return Outcome.REPEATED
            if late.status in TERMINAL:
                if response.status not in TERMINAL:
                    return Outcome.REPEATED
                self.conflicts += 1
                return Outcome.CONFLICTING
        ended_at = self.ended_at if self.ended_at is not None else at
        self.late = Late(response.status, at, max(0.0, at - ended_at), result, reason)
        if self.started_at is None:
            self.started_at = at
        return Outcome.LATE

    def cancel(self, now: float, at: float, grace: float) -> Cancel:
        """Withdraw the execution, or note that the device must be asked to stop.

        ``grace``: seconds that the device has for its verdict.
        """
        if self.is_terminal:
            return Cancel.ENDED
        if self.cancel_requested_at is not None:
            return Cancel.PENDING
        self.cancel_requested_at = at
        if self.retry_safe:
            self._close(Status.CANCELED, WITHDRAWN, at)
            return Cancel.DONE
        self.cancel_grace = grace
        self.cancel_deadline = now + grace
        return Cancel.REQUESTED

    def stayed_here(self, at: float) -> None:
        """Close a canceled execution whose one request, on record as published, was never written."""
        self.published_at = None
        self.attempts = 0
        self._close(Status.CANCELED, WITHDRAWN, at)

    def refuse(self, reason: StatusReason, at: float) -> bool:
        """Close an execution whose request the device will not take; return whether it was open."""
        if self.is_terminal:
            return False
        self._close(Status.REJECTED, reason, at)
        return True

    def expire(self, now: float, at: float) -> bool:
        """Close the execution if a deadline has passed; return whether it was closed.

        When both have passed, the one that came first decides, however late we look.
        """
        if self.is_terminal or now < self.next_deadline:
            return False
        if self.next_deadline == self.deadline:
            self._close(Status.TIMED_OUT, TIMED_OUT[self.delivery], at)
        else:
            self._close(Status.CANCELED, CANCEL_UNANSWERED, at)
        return True

    def _close(self, status: Status, reason: StatusReason, at: float) -> None:
        self.status = advance(self.status, status)
        self.reason = reason
        self.ended_at = at


CLOSED_BY_US: Final = frozenset({Status.TIMED_OUT, Status.CANCELED})
"""The ends that need not be the device's word: what it says afterwards is kept beside them."""

WITHDRAWN: Final = StatusReason("CANCELED", "withdrawn before it was published")
"""Why an execution was canceled whose request never left."""

CANCEL_UNANSWERED: Final = StatusReason(
    "NO_VERDICT", "the thing did not answer the cancel; it may still be at work"
)
"""Why an execution was canceled whose thing was asked to stop and kept silent."""

TIMED_OUT: Final = {
    Delivery.QUEUED: StatusReason(
        "NOT_DELIVERED",
        "the thing was not connected and subscribed within the TTL; the request was never published",
    ),
    Delivery.PUBLISHED: StatusReason(
        "NOT_ACKNOWLEDGED",
        "the request was published but not acknowledged; it may have run",
    ),
    Delivery.DELIVERED: StatusReason(
        "NO_RESPONSE",
        "the thing has the request but did not answer within the TTL; it may have run",
    ),
    Delivery.STARTED: StatusReason(
        "NO_VERDICT",
        "the thing began but did not say within the TTL how it ended",
    ),
}
"""Why a TIMED_OUT execution timed out, by how far its request had got."""
