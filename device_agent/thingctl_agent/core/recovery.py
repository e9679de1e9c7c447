"""What to do about an execution that an earlier run of the agent left open. Pure.

A command is begun again only if its action says that this is harmless, and at the most
``RESTARTS_MAX`` times; one that reboots the device is never begun again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingctl_agent.core import outcome
from thingctl_agent.handlers.policy import RESTARTS_MAX

if TYPE_CHECKING:
    from thingctl_agent.core.history import Entry
    from thingctl_agent.handlers.policy import Policy


def settle(entry: Entry, policy: Policy | None, *, rebooted: bool, trusted: bool) -> bytes | int:
    """The response that ends it, or the number of attempts made before the next one.

    ``policy``: of its action, if there still is one. ``rebooted``: the boot id has changed;
    wall clock minus uptime would not do, as the clock may have been set. ``trusted``: the
    journal lost nothing, and without a Started record it was certainly not begun.
    """
    if entry.accepted is not None and policy is None and trusted and not entry.attempt:
        text = f"this device no longer has an action named {entry.accepted.action!r}; nothing of it was done"
        return outcome.rejected(outcome.UNKNOWN_ACTION, text).encode()
    if entry.accepted is None or policy is None:
        return interrupted().encode()
    if policy.reboots:
        # Its records are flushed, so this holds for a journal that is not trusted, too.
        return _settle_reboot(entry, rebooted=rebooted) if entry.attempt else 0
    begun = max(entry.attempt, 0 if trusted else 1)
    if begun and (not policy.reruns or begun >= RESTARTS_MAX):
        return interrupted().encode()
    return begun


def _settle_reboot(entry: Entry, *, rebooted: bool) -> bytes:
    """SUCCEEDED only if the handler had recorded that it was about to restart the device."""
    if not rebooted:
        return not_rebooted("only the agent restarted, not the device").encode()
    return interrupted().encode() if entry.rebooting is None else entry.rebooting.payload


def interrupted() -> outcome.CallOutcome:
    """The verdict on a call that a crash or stop cut short."""
    return outcome.failed(
        outcome.INTERRUPTED, "the agent stopped before the handler had ended; it may have done part of it"
    )


def not_rebooted(text: str) -> outcome.CallOutcome:
    """The verdict on a reboot that did not happen."""
    return outcome.failed(outcome.NOT_REBOOTED, text)
