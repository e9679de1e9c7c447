"""What the HTTP API asks of commands to many things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from thingctl_broker.rollouts.rollout import Listed, Rollout, RolloutRules, State


class RolloutDriver(Protocol):
    """Commands to many things: begun, looked at, paused, resumed, canceled."""

    def start(self) -> None:
        """Go on with what is under way."""
        ...

    async def stop(self) -> None:
        """Send no more."""
        ...

    async def begin(
        self,
        things: list[str],
        action: str,
        params: bytes,
        ttl: int | None,
        rules: RolloutRules,
        *,
        requested_by: str,
        post_back_uri: str = "",
        idempotency_key: str = "",
        fingerprint: str = "",
    ) -> Rollout:
        """Accept a command for many things; it is kept when this returns.

        With a key that the same caller has used, return the rollout of that time.

        Raises :class:`~thingctl_broker.errors.InvalidCommand`, :class:`~thingctl_broker.errors.NotAccepting`,
        :class:`~thingctl_broker.errors.TableFull`, or :class:`~thingctl_broker.errors.IdempotencyConflict`
        when the key was used with another fingerprint.
        """
        ...

    async def get(self, command_id: str) -> Rollout | None:
        """The rollout of that command, if it had one."""
        ...

    async def newest(
        self, limit: int, cursor: str | None, states: frozenset[State] | None, requested_by: str | None
    ) -> list[Listed]:
        """At most ``limit`` rollouts, newest first, behind the one whose id is ``cursor``.

        ``states``, ``requested_by``: only those; None: all.
        """
        ...

    async def move(self, command_id: str, to: State) -> Rollout:
        """Pause, resume or cancel; it is kept when this returns.

        Raises :class:`~thingctl_broker.errors.UnknownCommand`, and
        :class:`~thingctl_broker.errors.WrongMove` when that cannot be done now.
        """
        ...
