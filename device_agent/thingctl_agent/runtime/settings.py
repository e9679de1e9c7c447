"""Settings from a file, a bundle, the environment and the command line, merged into one table.

A source is a table with the keys of ``agent.toml``, and ``bundle``: the path of a bundle, whose
fields count as given by that source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from thingctl_agent.errors import ConfigError
from thingctl_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingctl_protocol.bundle import Bundle

CREDENTIALS: Final = ("username", "password", "password_file")
TLS: Final = ("ca", "cert", "key")
"""Keys of the table ``tls``. Options and variables name them without the table."""

_VARIABLES: Final = (
    "thing",
    "username",
    "password",
    "password_file",
    "topic_root",
    "state_dir",
    "presence",
    "wall_clock",
    "bundle",
)
_PASSWORDS: Final = {"password": "password_file", "password_file": "password"}
"""Two ways to give one thing: a later source's replaces an earlier source's of either kind."""

MISNAMED_URL: Final = (
    "the broker's URL was taken from THINGCTL_URL, which is the thingctl command's; set THINGCTL_MQTT_URL"
)


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Merge sources; a later one wins. Raises :class:`ConfigError` for a bundle that cannot be read.

    A bundle replaces all credentials and TLS settings of earlier sources. Other keys of its own
    source win over it.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        given = _without_none(source)
        if path := given.pop("bundle", ""):
            for key in (*CREDENTIALS, "tls"):
                merged.pop(key, None)
            _add(merged, of_bundle(read_bundle(path)))
        _add(merged, given)
    return merged


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read THINGCTL_THING, THINGCTL_MQTT_URL and so on; empty variables count as unset."""
    settings: dict[str, Any] = {}
    for key in _VARIABLES:
        if value := environ.get(f"THINGCTL_{key.upper()}"):
            settings[key] = value
    if url := environ.get("THINGCTL_MQTT_URL") or misnamed_url(environ):
        settings["url"] = url
    if tls := {key: value for key in TLS if (value := environ.get(f"THINGCTL_{key.upper()}"))}:
        settings["tls"] = tls
    return settings


def misnamed_url(environ: Mapping[str, str]) -> str:
    """Return a broker's MQTT URL that is in THINGCTL_URL, the variable of the command ``thingctl``."""
    url = environ.get("THINGCTL_URL", "")
    return url if url.startswith("mqtt") and not environ.get("THINGCTL_MQTT_URL") else ""


def read_bundle(path: str) -> Bundle:
    """Read a bundle file; raises :class:`ConfigError`."""
    from thingctl_protocol.bundle import BUNDLE_MAX, decode_bundle  # noqa: PLC0415 - an idle agent has none

    try:
        with open(path, "rb") as file:
            bundle = decode_bundle(file.read(BUNDLE_MAX + 1))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ProtocolError as error:
        raise ConfigError(f"{path}: {error.text}") from None
    for key in TLS:
        if (text := getattr(bundle, key)) and not is_pem(text):
            raise ConfigError(f"{path}: its {key} is no PEM text")
    return bundle


def is_pem(setting: str) -> bool:
    """Whether a setting is a PEM text itself, and not the name of a file."""
    return "-----BEGIN " in setting


def of_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle's fields as settings; ``tls`` holds PEM texts."""
    settings: dict[str, Any] = {
        "thing": bundle.thing,
        "url": bundle.url,
        "topic_root": bundle.topic_root,
        "username": bundle.username,
        "password": bundle.password,
        "presence": bundle.presence,
    }
    settings = {key: value for key, value in settings.items() if value}
    if tls := {key: text for key in TLS if (text := getattr(bundle, key))}:
        settings["tls"] = tls
    return settings


def _add(merged: dict[str, Any], given: dict[str, Any]) -> None:
    for key, other in _PASSWORDS.items():
        if key in given and other not in given:
            merged.pop(other, None)
    both = merged.get("tls"), given.get("tls")
    merged.update(given)
    if isinstance(both[0], dict) and isinstance(both[1], dict):
        merged["tls"] = both[0] | both[1]


def _without_none(source: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in source.items() if value is not None}
    if isinstance(tls := given.get("tls"), dict):
        given["tls"] = {key: value for key, value in tls.items() if value is not None}
    return given
