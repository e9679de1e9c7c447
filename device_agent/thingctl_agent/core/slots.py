"""Who may run now: the agent's own bound, each action's, groups and rates. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingctl_agent.handlers.policy import ActionRate

if TYPE_CHECKING:
    from thingctl_agent.handlers.policy import Policy


class Slots:
    """Counts the calls that run. A call that outlives its time-out keeps its place."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._running: dict[str, tuple[str, str | None]] = {}
        self._per_action: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._overdue: dict[str, int] = {}
        self._overdue_groups: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def free(self, action: str, policy: Policy) -> bool:
        """Whether one more call of ``action`` may start now.

        Calls that should have ended take no place away from an action that is not durable:
        reads go on when the rest of the device hangs.
        """
        counted = len(self._running) - (0 if policy.durable else self._late)
        return (
            counted < self._total
            and self._per_action.get(action, 0) < policy.concurrency
            and (policy.exclusive is None or not self._groups.get(policy.exclusive))
        )

    @property
    def hung(self) -> bool:
        """Whether every place is held by a call that should have ended."""
        return self._late >= self._total

    @property
    def _late(self) -> int:
        return sum(self._overdue.values())

    def stuck(self, action: str, policy: Policy) -> str:
        """Why no call of ``action`` can start until one that timed out has ended; ``""``: it can."""
        if self._overdue.get(action, 0) >= policy.concurrency:
            return "an earlier call of it has timed out and still runs"
        if policy.exclusive is not None and self._overdue_groups.get(policy.exclusive):
            return f"a call of its group {policy.exclusive!r} has timed out and still runs"
        if self.hung and policy.durable:
            return f"{self._late} calls that timed out still run"
        return ""

    def take(self, execution_id: str, action: str, policy: Policy) -> None:
        """A call starts."""
        self._running[execution_id] = (action, policy.exclusive)
        self._per_action[action] = self._per_action.get(action, 0) + 1
        if policy.exclusive is not None:
            self._groups[policy.exclusive] = self._groups.get(policy.exclusive, 0) + 1

    def overdue(self, execution_id: str) -> None:
        """A call was answered in its place, and runs on."""
        action, group = self._running[execution_id]
        self._overdue[action] = self._overdue.get(action, 0) + 1
        if group is not None:
            self._overdue_groups[group] = self._overdue_groups.get(group, 0) + 1

    def release(self, execution_id: str, *, was_overdue: bool = False) -> None:
        """A call has ended."""
        action, group = self._running.pop(execution_id)
        _less(self._per_action, action)
        if was_overdue:
            _less(self._overdue, action)
            if group is not None:
                _less(self._overdue_groups, group)
        if group is not None:
            _less(self._groups, group)

    def within_rate(self, action: str, policy: Policy, now: float) -> bool:
        """Whether the action's rate allows one more command at ``now``; counts it if so."""
        if policy.rate is None:
            return True
        rate = ActionRate.parse(policy.rate)
        tokens, at = self._buckets.get(action, (float(rate.count), now))
        tokens = min(rate.count, tokens + (now - at) * rate.count / rate.seconds)
        allowed = tokens >= 1
        self._buckets[action] = (tokens - allowed, now)
        return allowed


def _less(counts: dict[str, int], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
