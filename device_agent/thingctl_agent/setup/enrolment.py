"""What ``install`` was given, as changes to ``agent.toml`` and files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from thingctl_agent.errors import AgentError, ConfigError
from thingctl_agent.runtime.settings import CREDENTIALS, TLS, is_pem
from thingctl_agent.setup import systemd_unit
from thingctl_agent.setup.files import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thingctl_agent.setup.toml_file import Value

_PLAIN: Final = ("thing", "url", "username", "topic_root", "presence", "wall_clock")
_ON_OFF: Final = {"on": True, "off": False}


class DeviceEnrolment(NamedTuple):
    """``changes``: keys of ``agent.toml``, ``None`` for those to remove. ``files``: beside it."""

    changes: dict[str, Value | None]
    files: list[Placement]


def enrol(
    given: Mapping[str, Any],
    before: Mapping[str, Any],
    handlers: Sequence[str],
    *,
    from_bundle: bool,
    group: str,
) -> DeviceEnrolment:
    """Work out what changes. ``given``: settings; ``before``: what ``agent.toml`` holds.

    ``from_bundle``: credentials that the bundle does not hold are removed. Raises
    :class:`AgentError` when a file cannot be read or would take another one's place.
    """
    changes: dict[str, Value | None] = {}
    files: list[Placement] = []
    for key in _PLAIN:
        if (value := given.get(key)) is not None:
            changes[key] = _ON_OFF.get(value, value) if key == "presence" else value
    _add_password(given, changes, files, group)
    _add_tls(given, changes, files, group)
    if from_bundle:
        _drop_others(given, before, changes)
    _add_handlers(handlers, before, changes, files)
    return DeviceEnrolment(changes, files)


def _add_password(
    given: Mapping[str, Any], changes: dict[str, Value | None], files: list[Placement], group: str
) -> None:
    if file := given.get("password_file"):
        content = _read(file)
    elif password := given.get("password"):
        content = password.encode()
    else:
        return
    files.append(Placement(systemd_unit.PASSWORD, content, 0o640, group, shown=False))
    changes |= {"password_file": systemd_unit.PASSWORD, "password": None}


def _add_tls(
    given: Mapping[str, Any], changes: dict[str, Value | None], files: list[Placement], group: str
) -> None:
    for key in TLS:
        if setting := given.get("tls", {}).get(key):
            content = setting.encode() if is_pem(setting) else _read(setting)
            path = f"{systemd_unit.CONFIG_DIR}/{key}.pem"
            files.append(Placement(path, content, 0o640, group, shown=False))
            changes[f"tls.{key}"] = path


def _drop_others(
    given: Mapping[str, Any], before: Mapping[str, Any], changes: dict[str, Value | None]
) -> None:
    """Remove credentials of another kind: a password beside a new certificate would be refused."""
    stale: list[str] = []
    if given.get("tls", {}).get("cert") and "password_file" not in changes:
        stale += CREDENTIALS
    if not str(given.get("url", "")).startswith("mqtts:"):
        stale += [f"tls.{key}" for key in TLS]
    for name in stale:
        table, _, key = name.rpartition(".")
        if name not in changes and key in (before.get(table, {}) if table else before):
            changes[name] = None


def _add_handlers(
    handlers: Sequence[str],
    before: Mapping[str, Any],
    changes: dict[str, Value | None],
    files: list[Placement],
) -> None:
    paths = [f"{systemd_unit.CONFIG_DIR}/{Path(file).name}" for file in handlers]
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise AgentError(f"two handlers are named {Path(twice.pop()).name}: rename one of them")
    files += [
        Placement(path, _read(file), 0o644, shown=False) for file, path in zip(handlers, paths, strict=True)
    ]
    listed = list(before.get("handlers", []))
    if new := [path for path in paths if path not in listed]:
        changes["handlers"] = listed + new


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
