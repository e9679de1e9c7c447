"""A request between its acceptance and its answer, and whether it is still fresh. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_agent.core import outcome

if TYPE_CHECKING:
    from collections.abc import Collection

    from thingctl_agent.core.clock import BrokerClock, Wall
    from thingctl_agent.core.outcome import CallOutcome
    from thingctl_agent.handlers.registry import Action

AT_WORK_AFTER: Final = 1.0
"""Seconds that a handler runs before the agent says that it is at work, if the handler has not."""

HOLD: Final = 2.0
"""Seconds after the first subscription that a request of unknown age waits for the broker's time."""


WAITING_OVERHEAD: Final = 1024
"""Bytes that a waiting command takes besides its params, rounded up."""


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one agent. Beyond them a command is REJECTED ``BUSY``.

    ``waiting``: commands; ``None``: as many as fit into ``waiting_bytes``, which is enough for all that
    a broker holds for one thing.
    """

    running: int = 8
    waiting: int | None = None
    waiting_bytes: int = 2 * 1024 * 1024

    def has_room(self, waiting: Collection[Call], size: int) -> bool:
        """Whether one more command, with ``size`` bytes of params, may wait beside those that do."""
        if self.waiting is not None and len(waiting) >= self.waiting:
            return False
        taken = sum(len(call.params) for call in waiting) + len(waiting) * WAITING_OVERHEAD
        return taken + size + WAITING_OVERHEAD <= self.waiting_bytes


class Call(msgspec.Struct):
    """One request between its acceptance and its answer."""

    execution_id: str
    action: Action
    params: bytes
    timestamp: float
    ttl: float
    deadline: float | None
    """Time since boot at which it is stale; ``None``: its age cannot be told yet."""
    attempt: int = 0
    kept: bytes | None = None
    timeout_at: float | None = None
    at_work_at: float | None = None
    """Time since boot at which to say that it is at work; ``None``: said, or not begun."""
    answered: bool = False
    asked_to_stop: str = ""
    ageless: bool = False
    rebooting: bool = False
    """Whether its handler has recorded that it is about to restart the device."""

    @property
    def expires(self) -> float:
        """Unix seconds by the broker's clock at which its TTL has passed."""
        return self.timestamp + self.ttl

    def judge(self, clock: BrokerClock, hold_until: float | None, now: float, wall: Wall) -> None:
        """Set the deadline if the age can be told; or by the action's policy, once that is hopeless.

        ``hold_until``: until when the broker may still say its time; ``None``: it could not yet.
        """
        if self.deadline is not None:
            return
        policy = self.action.policy
        lasts = self.ttl if policy.max_age is None else min(self.ttl, policy.max_age)
        age = clock.age(self.timestamp, now, wall)
        if age is not None:
            self.deadline = now + lasts - max(0.0, age)
        elif hold_until is not None and now >= hold_until:
            self.ageless = True
            self.deadline = now + lasts if policy.stale == "run" else now

    def expired(self) -> CallOutcome:
        """The verdict when its deadline has passed before it began."""
        if self.ageless:
            text = (
                "its age cannot be told: the broker said no time and the device's clock is not synchronised"
            )
        else:
            text = f"it is older than it may be (its TTL is {self.ttl:g} s)"
        return outcome.rejected(outcome.EXPIRED, text)
