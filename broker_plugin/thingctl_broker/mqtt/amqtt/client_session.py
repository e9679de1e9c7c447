"""What amqtt's plugins get for a client of our server: a session that amqtt knows nothing of."""

from __future__ import annotations

from typing import Final

from amqtt.session import Session


class _FixedState:
    """In place of amqtt's state machine, which costs 100 us and 30 KiB: the state does not change here."""

    def __init__(self, state: str) -> None:
        self.state: Final = state

    def is_connected(self) -> bool:
        """Whether the client is connected."""
        return self.state == "connected"

    def is_disconnected(self) -> bool:
        """Whether it has gone."""
        return self.state == "disconnected"


_CONNECTED: Final = _FixedState("connected")
_DISCONNECTED: Final = _FixedState("disconnected")


class ClientSession(Session):  # type: ignore[misc] # amqtt ships no types
    """Tells who the client is. amqtt keeps nothing for it: to amqtt it is a clean session."""

    def __init__(self, client_id: str, username: str | None, *, is_connected: bool = True) -> None:
        super().__init__()
        self.client_id = client_id
        self.username = username
        self.clean_session = True
        self.transitions = _CONNECTED if is_connected else _DISCONNECTED

    def _init_states(self) -> None: ...
