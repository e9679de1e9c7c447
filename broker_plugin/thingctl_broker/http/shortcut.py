"""A shortcut for the call that is made most: ``POST /api/v1/commands`` for one thing, whole, and in order.

Of what such a request costs, more than half would go into a scope, a task, and events and
futures between them, for an answer that no coroutine is needed for: the command is accepted
at once, and the answer written when the journal has it. So a request that came in one piece
and asks for nothing special is answered from where it came in.

Nothing is parsed, admitted, decoded, checked or told by other code than on the way that every
request can take (``app``), and nothing is refused here: whatever is not exactly what is looked
for, and whatever would be an error, is left untouched and uncounted for that way. A
property test holds that both come to the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from thingctl_broker.addresses import NO_NETWORKS
from thingctl_broker.credentials import Scope
from thingctl_broker.errors import ServiceError
from thingctl_broker.http.auth import require, require_command
from thingctl_broker.http.bodies import decode_body
from thingctl_broker.http.errors import Problem
from thingctl_broker.http.forwarding import read_forwarded
from thingctl_broker.http.heads import HEAD_MAX, read_head
from thingctl_broker.http.routes_commands import COMMANDS, accepted
from thingctl_broker.http.schemas import command_body_decoder
from thingctl_broker.origin import Origin, origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.addresses import Networks
    from thingctl_broker.credentials import Token
    from thingctl_broker.http.answers import Answer
    from thingctl_broker.http.callers import Callers
    from thingctl_broker.operations import SendsAtOnce
    from thingctl_broker.proxy_protocol import Peer

HEADS_KEPT: Final = 256
"""Heads that are known by their bytes: a client's differ by their Content-Length at most."""

_URL: Final = COMMANDS.encode()
_START: Final = b"POST %b HTTP/1.1\r\n" % _URL
_END: Final = b"\r\n\r\n"
_SEND: Final = Scope.COMMANDS_SEND


class Shortcut:
    """The shortcut of one API; every connection asks it."""

    def __init__(
        self, operations: SendsAtOnce, callers: Callers, tell: Callable[[Exception], Answer]
    ) -> None:
        """``tell``: makes the answer to a command that was accepted and then went wrong."""
        self._operations = operations
        self._callers = callers
        self._tell = tell
        self._head = lru_cache(HEADS_KEPT)(read_head)
        self._behind = lru_cache(HEADS_KEPT)(self._read_behind)

    def take(
        self,
        data: bytes,
        client: Peer | None,
        answered: Callable[[Answer], None],
        trusted: Networks = NO_NETWORKS,
    ) -> bool:
        """Answer the request that ``data`` is, now or later; False: it is for the other way.

        Then nothing has happened, and ``answered`` is not called. ``trusted``: the proxies, if the
        client is one of them.
        """
        if not data.startswith(_START):
            return False
        end = data.find(_END, 0, HEAD_MAX) + len(_END)
        head = self._head(data[:end], _URL)
        if head is None or end + head.length != len(data):
            return False
        if trusted and client is not None:
            client = self._behind(data[:end], client[0], trusted), 0
        scope = {"headers": head.headers, "client": client}
        token = self._callers.admit_at_once(scope)
        if token is None:
            return False
        try:
            taken = self._send(data[end:], token, client, answered)
        except (Problem, ServiceError):
            taken = False
        except Exception as error:
            answered(self._tell(error))
            return True
        if not taken:
            self._callers.forget(token)
        return taken

    def _read_behind(self, encoded: bytes, peer: str, trusted: Networks) -> str:
        """The address of the client behind a trusted proxy, by a head that is known."""
        head = self._head(encoded, _URL)
        assert head is not None
        return read_forwarded(head.headers, peer, trusted).client

    def _send(
        self,
        encoded: bytes,
        token: Token,
        client: Peer | None,
        answered: Callable[[Answer], None],
    ) -> bool:
        require(token, _SEND)
        body = decode_body(command_body_decoder, encoded)  # a command to many things is none to it
        if body.post_back_uri is not None:
            return False
        if token.is_limited:
            require_command(token, body.thing_id, body.action)
        # Calls that come in share a context, so what is set is taken back.
        before = origin.set(Origin(token.name, client[0] if client else ""))
        try:
            self._operations.send_then(
                body.thing_id,
                body.action,
                body.params_json(),
                body.ttl,
                accepted,
                told=answered,
                lost=lambda error: answered(self._tell(error)),
                requested_by=token.name,
            )
        finally:
            origin.reset(before)
        return True
