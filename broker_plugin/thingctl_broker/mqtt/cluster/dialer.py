"""Where to dial next, by which credentials, and how long to wait before it."""

from __future__ import annotations

import random
import ssl
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.cluster.connection import LinkConnection, Login
from thingctl_broker.mqtt.protocol.reason_codes import RequestRefused
from thingctl_broker.system.backoff import ExponentialBackoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.mqtt.cluster.settings import LinkSettings
    from thingctl_broker.mqtt.protocol.packets5 import Received

ROUNDS: Final = ExponentialBackoff(first=0.25, longest=15.0)
"""Between two rounds of all addresses."""

WAIT_REFUSED: Final = 30.0
"""Seconds after a refusal that stands until a person changes something."""


def wait_after(
    failures: int, *, for_good: bool, draw: Callable[[float, float], float] = random.uniform
) -> float:
    """How long to wait after so many failures in a row; ``draw(low, high)`` spreads the workers."""
    return (ExponentialBackoff(WAIT_REFUSED, WAIT_REFUSED) if for_good else ROUNDS).delay(failures, draw)


class LinkDialer:
    """Opens connections, beginning with the address that answered last."""

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._endpoints = list(settings.endpoints)

    async def dial(
        self,
        client_id: str,
        on_message: Callable[[Received], None],
        on_acknowledged: Callable[[int, int], None],
        made: Callable[[LinkConnection], None],
    ) -> LinkConnection:
        """Try each address once; raise :class:`RequestRefused` when none will do.

        ``made`` gets each connection before it is opened: messages of a kept session come
        right behind its CONNACK.
        """
        login = self._login(client_id)  # looked at anew each time: a password or certificate may be renewed
        faults: list[RequestRefused] = []
        for endpoint in list(self._endpoints):
            connection = LinkConnection(login, on_message, on_acknowledged)
            made(connection)
            try:
                await connection.open(endpoint, self._tls() if endpoint.tls else None)
            except RequestRefused as refused:
                faults.append(RequestRefused(f"{endpoint}: {refused.text}", for_good=refused.for_good))
            except ssl.SSLCertVerificationError as error:
                text = f"its certificate is not trusted ({error.verify_message}): is tls_ca its authority?"
                faults.append(RequestRefused(f"{endpoint}: {text}", for_good=True))
            except (OSError, UnicodeError) as error:  # no host name may be that long, say
                text = getattr(error, "strerror", None) or str(error) or type(error).__name__
                faults.append(RequestRefused(f"{endpoint}: {text}"))
            else:
                return connection
            self._endpoints.append(self._endpoints.pop(0))
        for_good = all(fault.for_good for fault in faults)
        raise RequestRefused("; ".join(fault.text for fault in faults), for_good=for_good)

    def _login(self, client_id: str) -> Login:
        settings = self._settings
        try:
            password = settings.secret()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestRefused(f"password_file cannot be read: {error}", for_good=True) from None
        return Login(
            client_id,
            settings.username,
            password,
            settings.keep_alive,
            settings.session_expiry,
            settings.receive_maximum,
        )

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.tls_ca or None)
            if settings.tls_cert:
                context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise RequestRefused(
                f"tls_ca, tls_cert or tls_key cannot be used: {error}", for_good=True
            ) from None
        return context
