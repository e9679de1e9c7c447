"""The settings in the environment that are not for the programs that handlers run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_SECRET: Final = ("THINGCTL_PASSWORD",)
_URLS: Final = ("THINGCTL_MQTT_URL", "THINGCTL_URL")
_OF_THE_SERVICE: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def take_out(environ: MutableMapping[str, str]) -> None:
    """Remove passwords and the service manager's variables. Call when they have been read."""
    for name in (*_SECRET, *_OF_THE_SERVICE):
        environ.pop(name, None)
    for name in _URLS:
        if _has_password(environ.get(name, "")):
            del environ[name]


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False
