"""Where an MQTT broker is, as a URL: ``mqtt://host:1883``, or ``mqtts://host:8883`` for TLS."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""The port of each scheme where the URL names none."""


_CREDENTIALS: Final = re.compile(r"//.*@", re.DOTALL)


class MqttUrl(NamedTuple):
    """The parts of a URL. As text it has no user name and no password."""

    host: str
    port: int
    tls: bool
    username: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"


def without_credentials(url: str) -> str:
    """The text of a URL, right or wrong, as it may stand in a log.

    >>> without_credentials("mqtt://me:hunter2@host:99999")
    'mqtt://…@host:99999'
    """
    return _CREDENTIALS.sub("//…@", url)


def parse_mqtt_url(url: str) -> MqttUrl:
    """Read ``mqtt://host`` or ``mqtts://user:password@host:port``.

    Raises ValueError, which says what is expected and repeats nothing of ``url``: it may hold a password.

    >>> parse_mqtt_url("mqtts://[::1]")
    MqttUrl(host='::1', port=8883, tls=True, username='', password='')
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname
    if parts.scheme not in PORTS or not host or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("write mqtt://host:port, or mqtts://host:port for TLS")
    return MqttUrl(
        host,
        PORTS[parts.scheme] if port is None else port,
        parts.scheme == "mqtts",
        parts.username or "",
        parts.password or "",
    )
