"""The agent's settings: a TOML file, the environment, what a program passes, the command line.

Each later source wins. Every key of the file is an attribute of :class:`Config`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from thingctl_agent.errors import ConfigError
from thingctl_agent.runtime import settings
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import is_thing_name
from thingctl_protocol.json_pointer import split_fault
from thingctl_protocol.mqtt_url import MqttUrl, parse_mqtt_url, without_credentials
from thingctl_protocol.topics import DEFAULT_ROOT, Topics

if TYPE_CHECKING:
    from collections.abc import Mapping


_ON_OFF: Final = {"on": True, "off": False}
"""How the command line says yes and no."""


STOP_GRACE_MAX: Final = 600
"""Seconds that handlers may have at the most when the agent stops."""


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM, or the PEM text itself.

    ``ca``: the system's authorities when not given. ``key``: in ``cert`` when not given.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``format``: ``auto`` is text on a terminal and ``json`` elsewhere; in systemd's journal, text."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one agent. Times are in seconds."""

    thing: str = ""
    url: str = "mqtt://127.0.0.1:1883"
    username: str = ""
    password: str = ""
    password_file: str = ""
    topic_root: str = DEFAULT_ROOT
    state_dir: str = ""
    handlers: tuple[str, ...] = ()
    keepalive: int = 60
    mqtt_version: Literal["3.1.1", 5] = "3.1.1"
    announce: bool = True
    presence: bool = False
    wall_clock: Literal["auto", "trust", "distrust"] = "auto"
    running: int = 8
    waiting: int | None = None
    stop_grace: float = 0.4
    tls: Tls = Tls()
    log: Log = Log()
    actions: dict[str, dict[str, Any]] = {}

    @property
    def broker(self) -> MqttUrl:
        """Where the broker is."""
        return parse_url(self.url)

    @property
    def secret(self) -> str:
        """The password, from wherever it is kept; raises :class:`ConfigError`."""
        if not self.password_file:
            return self.password
        try:
            with open(self.password_file, encoding="utf-8") as file:
                return file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"password_file cannot be read: {error}") from None

    @property
    def login(self) -> tuple[str, str]:
        """The MQTT user name and password; a password without a user name signs in as the thing.

        Raises :class:`ConfigError`.
        """
        broker = self.broker
        password = self.secret or broker.password
        return self.username or broker.username or (self.thing if password else ""), password

    @property
    def state(self) -> str:
        """The directory of the journal."""
        if self.state_dir:
            return self.state_dir
        if directory := os.environ.get("STATE_DIRECTORY"):  # systemd makes it and says where it is
            return directory.split(":")[0]
        base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return os.path.join(base, "thingctl-agent", self.thing)


def parse_url(url: str) -> MqttUrl:
    """Read ``mqtt://host:1883`` or ``mqtts://user:password@host``; raises :class:`ConfigError`."""
    try:
        return parse_mqtt_url(url)
    except ValueError as error:
        raise ConfigError(f"{without_credentials(url)!r} is no broker's URL; {error}") from None


def load(
    path: str | None = None,
    environ: Mapping[str, str] = os.environ,
    *later: Mapping[str, Any],
    **overrides: Any,
) -> Config:
    """Gather the settings; raises :class:`ConfigError`.

    ``path``: the file, or ``THINGCTL_CONFIG``, or none. ``overrides`` win over the environment,
    and each of ``later`` over what is before it. A value of ``None`` counts as not given. Relative
    paths start at the working directory, and become absolute.
    """
    path = path or environ.get("THINGCTL_CONFIG") or None
    environment = settings.from_environment(environ)
    sources = [_read(path) if path else {}, environment, overrides, *later]
    merged = settings.merge(*sources)
    if "tls" in environment and not str(merged.get("url", "")).startswith("mqtts:"):
        del environment["tls"]  # THINGCTL_CA is the thingctl command's, too; without TLS it has no meaning
        merged = settings.merge(*sources)
    return of_settings(merged, path or "settings")


def of_settings(table: dict[str, Any], source: str = "settings") -> Config:
    """Check merged settings; raises :class:`ConfigError`, which names ``source``."""
    if table.get("presence") in _ON_OFF:
        table["presence"] = _ON_OFF[table["presence"]]
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        text, path = split_fault(str(error))
        where = path.lstrip(".") or "the settings"
        raise ConfigError(f"{source}: {where}: {text}") from None
    _check(config)
    return _absolute(config)


def _absolute(config: Config) -> Config:
    """The settings with absolute paths, as a handler may change the working directory."""
    tls = Tls(*(_path(getattr(config.tls, name)) for name in Tls.__struct_fields__))
    return msgspec.structs.replace(
        config,
        password_file=_path(config.password_file),
        state_dir=_path(config.state_dir),
        handlers=tuple(_path(file) for file in config.handlers),
        tls=tls,
    )


def _path(path: str) -> str:
    return os.path.abspath(path) if path and not settings.is_pem(path) else path


def _read(path: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - an agent configured by its environment need not load it

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _check(config: Config) -> None:
    if not config.thing:
        raise ConfigError("which thing is this? Give --bundle, --thing, THINGCTL_THING or thing in the file")
    if not is_thing_name(config.thing):
        raise ConfigError(
            f"{config.thing!r} can't name a thing: use A-Z a-z 0-9 : _ . -, at most 128 of them"
        )
    config.broker  # noqa: B018 - raises
    try:
        Topics(config.topic_root)
    except ProtocolError as error:
        raise ConfigError(f"topic_root: {error}") from None
    if config.tls != Tls() and not config.broker.tls:
        raise ConfigError("there are TLS settings, but the URL is mqtt://; write mqtts://")
    if config.tls.key and not config.tls.cert:
        raise ConfigError("tls.key needs tls.cert")
    if not 5 <= config.keepalive <= 65535:
        raise ConfigError("keepalive is 5 to 65535 seconds")
    if config.running < 1 or (config.waiting is not None and config.waiting < 0):
        raise ConfigError("running is at least 1, waiting at least 0")
    if not 0 <= config.stop_grace <= STOP_GRACE_MAX:
        raise ConfigError(f"stop_grace is 0 to {STOP_GRACE_MAX} seconds")
