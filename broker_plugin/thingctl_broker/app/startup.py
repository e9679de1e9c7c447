"""What a broker opens before it begins, told in one kind of error when it cannot be had."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.audit.log import Audit, AuditError
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.security.rate_limit import ONCE_A_MINUTE, TokenBuckets
from thingctl_broker.security.tls import ALPN, ServerTls, TlsError
from thingctl_broker.storage.sqlite.database import DatabaseFileError
from thingctl_broker.storage.sqlite.record_store import FILE as RECORDS_FILE
from thingctl_broker.storage.sqlite.record_store import SqliteRecords
from thingctl_broker.system.addresses import bind_tcp, parse_address
from thingctl_broker.system.paths import default_data_dir

if TYPE_CHECKING:
    import socket

    from thingctl_broker.app.config import HttpSettings, MqttSettings, Settings
    from thingctl_broker.commands.events import Counters
    from thingctl_broker.system.listeners import DoorReason, Refused


_log = structlog.get_logger("thingctl.tls")
_proxies_log = structlog.get_logger("thingctl.proxies")


def data_dir_of(settings: Settings) -> Path:
    """Where the broker keeps its files."""
    return Path(settings.data_dir) if settings.data_dir else default_data_dir()


def open_socket(what: str, bind: str) -> socket.socket:
    """Listen on ``bind``; raises :class:`ConfigurationError`, which says what for."""
    try:
        sock = bind_tcp(parse_address(bind))
        try:
            sock.listen()  # if it were only bound, another could be bound here too, and hear nothing
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ConfigurationError(f"{what}: cannot listen on {bind}: {error.strerror or error}") from None
    return sock


def open_http_tls(settings: HttpSettings) -> ServerTls | None:
    """The listener's certificate; None: it has none. Raises :class:`ConfigurationError`."""
    try:
        return ServerTls(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
    except TlsError as error:
        raise ConfigurationError(str(error)) from error


def open_mqtt_tls(settings: MqttSettings) -> ServerTls | None:
    """The same of the MQTT listener."""
    try:
        return (
            ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca, alpn=(ALPN,))
            if settings.tls_cert
            else None
        )
    except TlsError as error:
        raise ConfigurationError(str(error)) from error


def open_audit(settings: Settings, directory: Path) -> Audit | None:
    """The audit file; None: none is to be kept. Raises :class:`ConfigurationError`."""
    if not settings.audit.enabled:
        return None
    try:
        return Audit(directory, time.time, file_max=settings.audit.file_bytes)
    except AuditError as error:
        raise ConfigurationError(str(error)) from error


def report_proxies(listener: str, counters: Counters) -> Refused:
    """Return what counts connections of named proxies that are refused, and logs each reason once a minute.

    ``listener``: ``mqtt`` or ``http``, for the log.
    """
    limit = TokenBuckets(ONCE_A_MINUTE)

    def refused(host: str, reason: DoorReason) -> None:
        counters[f"proxies.{reason}"] += 1
        if limit.allows(f"{host} {reason}", time.monotonic()):
            _proxies_log.warning(
                "a proxy's connection was refused: it must begin with a PROXY header",
                listener=listener,
                proxy=host,
                reason=reason.value,
            )

    return refused


def report_refusals(tls: ServerTls | None, listener: str, counters: Counters) -> None:
    """Count the TLS handshakes that fail, and log each reason at most once a minute.

    ``listener``: ``mqtt`` or ``http``, for the log.
    """
    limit = TokenBuckets(ONCE_A_MINUTE)

    def refused(reason: str) -> None:
        counters[f"tls.{reason}"] += 1
        if limit.allows(reason, time.monotonic()):
            _log.warning("TLS handshake refused", listener=listener, reason=reason)

    if tls is not None:
        tls.on_refused = refused


RECORDS_INTERVAL: Final = 1.0
"""Seconds between two commits of sessions and messages with ``mqtt.persistence = "interval"``."""


def open_records(settings: Settings, data_dir: Path) -> SqliteRecords | None:
    """Open what keeps sessions and messages; None: nothing does. Raises :class:`ConfigurationError`."""
    if settings.in_memory or settings.mqtt.persistence == "off":
        return None
    interval = RECORDS_INTERVAL if settings.mqtt.persistence == "interval" else 0.0
    try:
        return SqliteRecords(data_dir / RECORDS_FILE, interval=interval)
    except DatabaseFileError as error:
        way_out = (
            f"Restore a backup, or move {RECORDS_FILE} and {RECORDS_FILE}-wal away to start without sessions"
        )
        raise ConfigurationError(f"{error} {way_out}") from error
