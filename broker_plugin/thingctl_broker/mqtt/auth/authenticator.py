"""Who may connect: what the server asks before anything else knows of a client, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from thingctl_protocol.identifiers import is_thing_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.security.topic_acl import TopicRights


class Identity(NamedTuple):
    """Who a client is. ``thing`` is None for one that is no thing: it has no commands.

    ``client_id``: the one that counts from now on; None: the one that the client gave.
    ``acl``: what it may do with ordinary topics; None: everything. ``stands()``: whether it
    would still be admitted; asked when it had to wait for its namesake to leave, and of
    one that is no thing now and then. ``observes``: whether it may see the command traffic.
    """

    thing: str | None
    client_id: str | None = None
    acl: TopicRights | None = None
    stands: Callable[[], bool] | None = None
    observes: bool = False


class Authenticator(Protocol):
    """Decides who may connect, before anything else knows of the client."""

    def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity | Awaitable[Identity]:
        """Return who it is. Raises :class:`~thingctl_broker.mqtt.protocol.packets.ConnectRefused`."""
        ...


class OpenAuthenticator:
    """Admits everybody: a thing's name is its user name, or else its client id.

    A client that can be no thing by that (``@`` begins no thing's name) may watch.
    """

    def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity:  # noqa: ARG002 others look at it
        """Return the thing that the client says it is, if that can name one."""
        name = connect.username or connect.client_id
        is_thing = is_thing_name(name)
        return Identity(name if is_thing else None, observes=not is_thing)
