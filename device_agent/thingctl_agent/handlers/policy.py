"""Per-action execution policy: rate, concurrency, time-out. Checked at registration."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec

from thingctl_agent.errors import RegistrationError

RESTARTS_MAX: Final = 3
"""How often one command is begun at the most, crashes in mid-handler included."""

_RATE: Final = re.compile(r"([1-9][0-9]{0,5})\s*/\s*([1-9][0-9]{0,4})?\s*(s|min|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class ActionRate(msgspec.Struct, frozen=True):
    """At most ``count`` commands in any burst, refilled evenly over ``seconds``."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> ActionRate:
        """Read ``"10/min"``, ``"1/30s"``, ``"5/h"``; raises :class:`RegistrationError`."""
        match = _RATE.fullmatch(text.strip())
        if match is None:
            raise RegistrationError(f"{text!r} is no rate; write for instance '10/min', '1/30s' or '100/h'")
        return cls(int(match[1]), int(match[2] or 1) * _SECONDS[match[3]])


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How an action may be run.

    timeout
        Seconds a call may take; ``None``: until the command's TTL has passed.
    concurrency
        Calls of this action at the same time. More wait their turn.
    exclusive
        Name of a group of actions of which only one call runs at a time.
    max_age
        Seconds; a request older than this is never run, whatever its TTL.
    rate
        ``"10/min"``: more commands than that are REJECTED ``BUSY``.
    stale
        ``"run"`` or ``"reject"`` a request whose age cannot be told: the broker has
        not said its time and the clock of the device is not synchronised.
    durable
        ``False`` for read-only actions: nothing is written to the journal, and a
        call that a crash interrupted is simply asked for again by the broker.
    on_restart
        What becomes of a call that a crash or restart interrupted: ``"fail"`` ends it
        FAILED ``INTERRUPTED``; ``"rerun"`` begins again; ``"resume"`` too, and the
        handler finds in ``ctx.saved`` what it last gave to ``ctx.save()``.
    reboots
        The action restarts the device: SUCCEEDED is said after the reboot, if the handler
        had called ``ctx.rebooting()`` or returned before it.
    """

    timeout: float | None = None
    concurrency: int = 1
    exclusive: str | None = None
    max_age: float | None = None
    rate: str | None = None
    stale: Literal["run", "reject"] = "reject"
    durable: bool = True
    on_restart: Literal["fail", "rerun", "resume"] = "fail"
    reboots: bool = False

    @property
    def reruns(self) -> bool:
        """Whether an interrupted call may be begun again."""
        return self.on_restart != "fail" and not self.reboots


def make_policy(**options: Any) -> Policy:
    """Build a policy; raises :class:`RegistrationError` for an option unknown or out of bounds."""
    unknown = sorted(set(options) - set(Policy.__struct_fields__))
    if unknown:
        raise RegistrationError(
            f"no such option: {', '.join(unknown)}; there are {', '.join(Policy.__struct_fields__)}"
        )
    try:
        policy = msgspec.convert(
            {
                Policy.__struct_encode_fields__[Policy.__struct_fields__.index(k)]: v
                for k, v in options.items()
            },
            Policy,
        )
    except msgspec.ValidationError as error:
        raise RegistrationError(str(error)) from None
    for name in ("timeout", "max_age"):
        value = getattr(policy, name)
        if value is not None and not value > 0:
            raise RegistrationError(f"{name} is in seconds, above 0")
    if policy.concurrency < 1:
        raise RegistrationError("concurrency is at least 1")
    if policy.rate is not None:
        ActionRate.parse(policy.rate)
    if policy.reboots and not policy.durable:
        raise RegistrationError("an action that reboots the device must be durable")
    if policy.reboots and policy.on_restart != "fail":
        raise RegistrationError("an action that reboots the device is never begun again: no on_restart")
    if not policy.durable and policy.on_restart != "fail":
        raise RegistrationError("on_restart needs a durable action: nothing is remembered of this one")
    return policy
