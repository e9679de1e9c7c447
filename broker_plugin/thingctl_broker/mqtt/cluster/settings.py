"""Where the MQTT cluster is and how a worker joins it: checked as a whole before anything is dialled."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from thingctl_protocol.mqtt_url import MqttUrl, parse_mqtt_url, without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSWORD_VARIABLE: Final = "THINGCTL_LINK_PASSWORD"  # noqa: S105 - a name, not a password
"""Where the password may come from: it need not stand in a file."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A worker's way to the cluster. Times in seconds."""

    urls: tuple[str, ...] = ()
    """``mqtt://host:1883`` or, for TLS, ``mqtts://host:8883``; tried in turn."""
    group: str = "thingctl"
    """Of the shared subscriptions: each message goes to one worker of the group."""
    worker: str = ""
    """Tells the workers of a group apart; stays the same over a restart. Empty: the host's name."""
    username: str = ""
    password: str = ""
    password_file: str = ""
    """Instead of ``password``; a third way is the environment's ``THINGCTL_LINK_PASSWORD``."""
    tls_ca: str = ""
    """Whom to trust, PEM; empty: the system's authorities."""
    tls_cert: str = ""
    """The worker's own certificate, PEM."""
    tls_key: str = ""
    """Its key; empty: it is in ``tls_cert``."""
    keep_alive: Annotated[int, msgspec.Meta(ge=5, le=600)] = 15
    session_expiry: Annotated[int, msgspec.Meta(ge=60, le=7 * 24 * 3600)] = 3600
    """How long the cluster keeps what is meant for a worker that has gone without a word."""
    receive_maximum: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    """Messages that the worker may have from the cluster and not have acknowledged."""

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.worker or socket.gethostname()

    @property
    def client_id(self) -> str:
        """The worker's MQTT client id."""
        return f"thingctl-{self.group}-{self.name}"

    @property
    def endpoints(self) -> tuple[MqttUrl, ...]:
        """The addresses of ``urls``; raises ValueError."""
        return tuple(parse_url(url) for url in self.urls)

    def secret(self, environ: Mapping[str, str] = os.environ) -> str:
        """The password, from wherever it is kept; raises OSError and UnicodeDecodeError."""
        if not self.password_file:
            return self.password or environ.get(PASSWORD_VARIABLE, "")
        with open(self.password_file, encoding="utf-8") as file:  # noqa: PTH123 - a path from a file
            return file.read().rstrip("\n")

    def __repr__(self) -> str:
        shown = msgspec.structs.replace(self, password="…" if self.password else "")
        fields = ", ".join(f"{name}={getattr(shown, name)!r}" for name in self.__struct_fields__)
        return f"LinkSettings({fields})"


def parse_url(url: str) -> MqttUrl:
    """Read ``mqtt://host:1883`` or ``mqtts://host``; raises ValueError, which does not repeat a password.

    >>> str(parse_url("mqtts://emqx.example"))
    'mqtts://emqx.example:8883'
    """
    try:
        endpoint = parse_mqtt_url(url)
    except ValueError as error:
        raise ValueError(f"{without_credentials(url)!r} is no URL of a cluster: {error}") from None
    if endpoint.username or endpoint.password or "@" in url:
        raise ValueError(
            f"{endpoint.host}: URLs are logged, so no user name or password; set username, password_file"
        )
    return endpoint


def check_link(settings: LinkSettings) -> LinkSettings:
    """Return ``settings`` if they make sense together; raises ValueError with a sentence."""
    fault = _fault(settings)
    if fault is not None:
        raise ValueError(fault)
    return settings


def _fault(settings: LinkSettings) -> str | None:
    if not settings.urls:
        return "urls: where is the cluster? Write one or more like mqtts://emqx.example:8883"
    try:
        endpoints = settings.endpoints
    except ValueError as error:
        return f"urls: {error}"
    for key in ("group", "worker"):
        name = getattr(settings, key)
        if name and not _NAME.fullmatch(name):
            return (
                f"{key}: {name!r} stands in topics and client ids: use A-Z a-z 0-9 _ . -, at most 64 of them"
            )
    if not settings.group:
        return "group: the workers need a name in common"
    if not settings.worker and not _NAME.fullmatch(socket.gethostname()):
        return f"worker: this host's name, {socket.gethostname()!r}, will not do as the worker's: set one"
    if settings.password and settings.password_file:
        return "password and password_file: only one of them"
    has_tls_files = settings.tls_ca or settings.tls_cert or settings.tls_key
    if has_tls_files and not any(endpoint.tls for endpoint in endpoints):
        return "there are TLS settings, but no URL is mqtts://"
    if settings.tls_key and not settings.tls_cert:
        return "tls_key needs tls_cert"
    return None
