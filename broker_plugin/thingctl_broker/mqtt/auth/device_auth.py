"""The names in a client's TLS certificate, which the handshake has verified."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from thingctl_broker.mqtt.auth.authenticator import Identity
from thingctl_broker.mqtt.auth.token_auth import Backends, is_backend
from thingctl_broker.mqtt.protocol.packets import ConnectRefused, too_many_failures
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.security.passwords import Busy, TooManyFailures
from thingctl_broker.security.topic_acl import Acl, AclSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.security.passwords import Passwords
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.thing import Thing


def names_of(certificate: Any) -> tuple[str, ...]:
    """The common name and the DNS names of a certificate as ``SSLSocket.getpeercert()`` tells it.

    >>> names_of({"subject": ((("commonName", "lamp"),),), "subjectAltName": (("DNS", "lamp"), ("DNS", "a"))})
    ('lamp', 'a')
    """
    if not certificate:
        return ()
    common = (
        value
        for attributes in certificate.get("subject", ())
        for name, value in attributes
        if name == "commonName"
    )
    alternative = (value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    return tuple(dict.fromkeys((*common, *alternative)))


class IdentityGatekeeper:
    """Admits things that are registered and enabled, by certificate or password, and bearers of tokens."""

    def __init__(
        self,
        things: ThingRegistry,
        passwords: Passwords,
        acl: AclSettings | None = None,
        tokens: TokenStore | None = None,
        *,
        proven: Callable[[str, str], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``tokens``: those that may sign in too (``backends``).

        ``proven`` gets a thing and the hash of the new password that it has signed in with while the
        old one was still valid. ``now``: the time in Unix seconds.
        """
        self._proven = proven
        self._now = now
        self._backends = None if tokens is None else Backends(tokens)
        self._things = things
        self._passwords = passwords
        self._acl = AclSettings() if acl is None else acl

    def admit(self, connect: Connect, peer: tuple[str, int]) -> Identity | Awaitable[Identity]:
        """Return who it is; raise :class:`ConnectRefused` otherwise."""
        if self._backends is not None and is_backend(connect):
            return self._backends.admit(connect, peer[0])
        if connect.certificate:
            return self._admission(self._certified(connect), connect)
        if not connect.username or connect.password is None:
            raise ConnectRefused(Reason.NOT_AUTHORIZED, "no user name and password")
        thing = self._things.get(connect.username)
        if thing is not None:
            hashes = thing.hashes(self._now())
            right = self._passwords.remembers(thing.name, hashes, connect.password)
            if right and not thing.previous_hash:
                return self._admission(thing, connect, right)
            if right:
                return self._renewed(thing, connect, right)
        return self._verify(connect, connect.username, connect.password, peer[0])

    async def _verify(self, connect: Connect, name: str, password: bytes, address: str) -> Identity:
        thing = self._things.get(name)
        hashes = () if thing is None else thing.hashes(self._now())
        try:
            right = await self._passwords.verify(name, hashes, password, address)
        except TooManyFailures:
            raise too_many_failures() from None
        except Busy:
            raise ConnectRefused(Reason.SERVER_UNAVAILABLE, "too many are signing in at once") from None
        # Verifying took its time: what was decided about the thing in that time counts.
        thing = self._things.get(name)
        if not right or thing is None or right not in thing.hashes(self._now()):
            raise ConnectRefused(Reason.BAD_USER_NAME_OR_PASSWORD, "wrong user name or password")
        return await self._renewed(thing, connect, right)

    async def _renewed(self, thing: Thing, connect: Connect, right: str) -> Identity:
        """Let a thing in; with its new password the old one ends."""
        admission = self._admission(thing, connect, right)
        if self._proven is not None and thing.previous_hash and right == thing.password_hash:
            await self._proven(thing.name, right)
        return admission

    def _admission(self, thing: Thing, connect: Connect, right: str = "") -> Identity:
        """``right``: the hash of the password that it came with; empty: it came with a certificate."""

        def stands() -> bool:
            is_same = self._things.get(thing.name) is thing and thing.enabled
            return is_same and (not right or right in thing.hashes(self._now()))

        return admission_of(thing, connect, self._acl)._replace(stands=stands)

    def _certified(self, connect: Connect) -> Thing:
        """The one thing that the certificate names; a user name chooses among several."""
        found = [thing for name in connect.certificate if (thing := self._things.get(name)) is not None]
        if connect.username:
            found = [thing for thing in found if thing.name == connect.username]
        if len(found) != 1:
            raise ConnectRefused(
                Reason.NOT_AUTHORIZED,
                "the certificate names no thing that is known, or not the one of the user name, or several",
            )
        return found[0]


def admission_of(thing: Thing, connect: Connect, acl: AclSettings) -> Identity:
    """Let a thing in whose identity is proven; raises :class:`ConnectRefused` if it may not connect."""
    if not thing.enabled:
        raise ConnectRefused(Reason.NOT_AUTHORIZED, f"the thing {thing.name!r} is disabled")
    own = Acl(acl, thing.name)
    if connect.will is not None and not own.may_publish(connect.will.topic):
        raise ConnectRefused(Reason.NOT_AUTHORIZED, f"a will on topic {connect.will.topic[:80]!a}")
    # A slash is in no thing's name, so no two identities meet here, whatever their client ids.
    return Identity(thing.name, f"{thing.name}/{connect.client_id}", own)
