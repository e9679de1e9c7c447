"""The TLS context, made anew when one of its files has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from thingctl_agent.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    from thingctl_agent.config import Tls


class Contexts:
    """Gives each connection the context of the certificates as they are now.

    A renewed certificate is in use from the next connection on; SIGHUP makes one.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._changed: tuple[float, ...] = ()

    def current(self) -> ssl.SSLContext:
        """The context; raises :class:`ConfigError` when a file cannot be used."""
        files = [name for name in (self._settings.ca, self._settings.cert, self._settings.key) if name]
        try:
            changed = tuple(os.stat(name).st_mtime for name in files)
            if self._context is None or changed != self._changed:
                self._context = _make(self._settings)
                self._changed = changed
        except OSError as error:  # ssl.SSLError is one, too
            raise ConfigError(
                f"TLS: {error.filename or ', '.join(files)}: {error.strerror or error}"
            ) from None
        return self._context


def _make(settings: Tls) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - 6 MB that an agent without TLS never needs

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca:
        context.load_verify_locations(cafile=settings.ca)
    else:
        context.load_default_certs()
    if settings.cert:
        context.load_cert_chain(settings.cert, settings.key or None, password=lambda: "")
    return context
