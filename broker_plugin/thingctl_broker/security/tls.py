"""TLS contexts of the listeners; renewed certificates are taken up while the broker runs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHECK_INTERVAL: Final = 10.0
"""Seconds between two looks at whether a certificate was renewed."""

ALPN: Final = "mqtt"
"""MQTT's name in TLS (RFC 7301). A client that asks for none, or for others, is served too."""

_log = structlog.get_logger("thingctl.tls")


class TlsError(Exception):
    """A certificate or key cannot be used; the text says which and why."""


class ServerTls:
    """One listener's context. New connections get the certificate as it is on the disk."""

    def __init__(self, cert: str, key: str, client_ca: str = "", *, alpn: Sequence[str] = ()) -> None:
        """Files in PEM. ``client_ca``: whose certificates devices may show. ``alpn``: the protocols spoken.

        Raises :class:`TlsError`.
        """
        self._cert = Path(cert)
        self._key = Path(key or cert)
        self._client_ca = client_ca
        self._alpn = tuple(alpn)
        self.on_refused: Callable[[str], None] | None = None
        """What is told of each handshake that fails, with OpenSSL's reason."""
        self.context = self._make()
        self.context.sslobject_class = _observed(self)
        self._names: tuple[str, ...] | None = None
        self._seen = self._stamp()

    @property
    def names(self) -> tuple[str, ...]:
        """For which names the certificate stands: host names, then addresses."""
        if self._names is None:
            from thingctl_broker.security.certificate_authority import names_in  # noqa: PLC0415 5 MB that many brokers never need

            try:
                self._names = names_in(self._cert.read_bytes())
            except (OSError, ValueError) as error:
                _log.warning("the names in the certificate cannot be read", fault=str(error))
                return ()
        return self._names

    def look(self) -> bool:
        """Take up files that have changed; return whether they have. What is wrong is logged."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._make()  # a pair that does not fit must not replace one that does
            self.context.load_cert_chain(self._cert, self._key)
            self._names = None
        except (TlsError, OSError) as error:
            _log.error("the renewed certificate cannot be used; the old one stays", fault=str(error))
            return False
        _log.info("certificate taken up", cert=str(self._cert))
        return True

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise TlsError(f"TLS: {self._cert}, {self._key}: {_words(error)}") from None
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        if self._client_ca:
            try:
                context.load_verify_locations(self._client_ca)
            except OSError as error:
                raise TlsError(f"TLS: {self._client_ca}: {_words(error)}") from None
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in (self._cert, self._key))
        except OSError:
            return ()  # while it is being replaced


def _observed(listener: ServerTls) -> type[ssl.SSLObject]:
    """The class of the listener's connections: asyncio ends one whose handshake fails without a word."""

    class Connection(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                if listener.on_refused is not None:
                    listener.on_refused(error.reason or "UNKNOWN")
                raise

    return Connection


async def keep_looking(listeners: list[ServerTls]) -> None:
    """Look for renewed certificates, for ever."""
    while True:
        await asyncio.sleep(CHECK_INTERVAL)
        for listener in listeners:
            listener.look()


def _no_password() -> str:
    """A key with a password would have OpenSSL ask on the terminal."""
    return ""


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
