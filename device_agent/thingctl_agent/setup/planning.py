"""What ``install`` does on this device or in this image: which files, with which content."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from thingctl_agent.errors import AgentError, ConfigError
from thingctl_agent.runtime import config
from thingctl_agent.runtime.options import overrides
from thingctl_agent.runtime.settings import from_environment, merge
from thingctl_agent.setup import systemd_unit, toml_file
from thingctl_agent.setup.enrolment import enrol
from thingctl_agent.setup.files import Placement, under
from thingctl_agent.setup.handler_loader import agents_in

if TYPE_CHECKING:
    from thingctl_agent.setup.enrolment import DeviceEnrolment

UNREACHABLE: Final = ("/home/", "/root/", "/tmp/")  # noqa: S108 - the unit's user cannot read below these


class InstallPlan(NamedTuple):
    """What to install. ``notes``: what is kept or changed in ``agent.toml``, by key."""

    program: str
    files: list[Placement]
    notes: list[str]
    unwanted: list[str]


class Place(NamedTuple):
    """Where to install: this device, or an image below ``root``."""

    root: Path
    live: bool

    @property
    def group(self) -> str:
        """The group that reads secrets; an image gets it at its first boot."""
        return systemd_unit.USER if self.live else ""


def plan(arguments: Any, place: Place) -> InstallPlan:
    """Work out what ``install`` does; reads files, writes none. Raises :class:`AgentError`."""
    program = _program(arguments, place)
    if arguments.state_dir:
        raise ConfigError(f"the service keeps its journal in {systemd_unit.STATE_DIR}: leave --state-dir out")
    for file in arguments.handlers:
        agents_in(file)  # raises what would otherwise keep the service from starting
    before = _read_existing(place)
    base = _base(arguments, before)
    have = _parse(base)
    given = _given(arguments, have)
    enrolment = enrol(given, have, arguments.handlers, from_bundle=_has_bundle(arguments), group=place.group)
    text = _changed(base, have, enrolment)
    new = toml_file.parse(text)
    config.of_settings(toml_file.parse(text), systemd_unit.CONFIG)
    files = [*enrolment.files, *_old_config(before, {base, text}, place)]
    shown = "password" not in new and "@" not in str(new.get("url", ""))
    files.append(Placement(systemd_unit.CONFIG, text.encode(), 0o640, place.group, shown))
    files.append(Placement(systemd_unit.UNIT, _unit(arguments, place, program).encode(), 0o644))
    unwanted = []
    if _reboots(arguments, place):
        files.append(Placement(systemd_unit.POLKIT, systemd_unit.polkit_rule().encode(), 0o644))
    else:
        unwanted.append(systemd_unit.POLKIT)
    if not place.live:
        files.append(Placement(systemd_unit.SYSUSERS, systemd_unit.sysusers().encode(), 0o644))
        files.append(Placement(systemd_unit.TMPFILES, systemd_unit.tmpfiles().encode(), 0o644))
    return InstallPlan(program, files, _notes(have, new) if before == base else [], unwanted)


def _program(arguments: Any, place: Place) -> str:
    own = Path(sys.prefix) / "bin" / "thingctl-agent"
    if not place.live:
        root = place.root.resolve()
        inside = own.is_relative_to(root) and f"/{own.relative_to(root)}"
        return str(arguments.program or inside or systemd_unit.PROGRAM)
    if str(own).startswith(UNREACHABLE):
        raise ConfigError(
            f"{own} is where the agent's own user cannot read it; install into /opt:\n"
            "  sudo python3 -m venv /opt/thingctl-agent\n"
            "  sudo /opt/thingctl-agent/bin/pip install ./thingctl-*.whl\n"
            "  sudo /opt/thingctl-agent/bin/thingctl-agent install --bundle FILE"
        )
    return str(own)


def _read_existing(place: Place) -> str | None:
    path = under(place.root, systemd_unit.CONFIG)
    return _read(path, systemd_unit.CONFIG) if path.exists() else None


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise AgentError(f"{name} cannot be read: {reason}") from None


def _base(arguments: Any, before: str | None) -> str:
    """The text in which keys are changed: the installed agent.toml, another one, or a first one."""
    if arguments.config:
        if before is not None and not arguments.force:
            raise AgentError(
                f"{systemd_unit.CONFIG} is there: edit it, or replace it by --config FILE --force"
            )
        return _read(Path(arguments.config), arguments.config)
    return systemd_unit.config_file() if before is None or arguments.force else before


def _parse(text: str) -> dict[str, Any]:
    try:
        return toml_file.parse(text)
    except AgentError as error:
        raise AgentError(
            f"{systemd_unit.CONFIG} is kept as it is: {error}; mend it, or write it anew with --force"
        ) from None


def _given(arguments: Any, old: dict[str, Any]) -> dict[str, Any]:
    """The settings that the options, the bundle and the environment hold; raises ConfigError."""
    environment = from_environment(os.environ)
    environment.pop("state_dir", None)
    given = merge(environment, overrides(arguments))
    url = str(given.get("url") or old.get("url", ""))
    if "tls" in environment and not url.startswith("mqtts:"):
        del environment["tls"]
        given = merge(environment, overrides(arguments))
    _check_same_thing(arguments, given, old)
    return given


def _has_bundle(arguments: Any) -> bool:
    return bool(arguments.bundle or os.environ.get("THINGCTL_BUNDLE"))


def _check_same_thing(arguments: Any, given: dict[str, Any], old: dict[str, Any]) -> None:
    installed, thing = old.get("thing"), given.get("thing")
    if installed and thing and installed != thing and not arguments.thing:
        raise AgentError(
            f"this device is installed as thing {installed!r}, and this is for {thing!r}: give "
            f"--thing {thing} to make it that thing, or the bundle of {installed!r}"
        )


def _changed(base: str, have: dict[str, Any], enrolment: DeviceEnrolment) -> str:
    """The new text of agent.toml."""
    known = _flat(have)
    changes = {name: value for name, value in enrolment.changes.items() if known.get(name) != value}
    try:
        return toml_file.change(base, changes)
    except AgentError as error:
        raise AgentError(
            f"{systemd_unit.CONFIG} is kept as it is: {error}, or give --force to write it anew"
        ) from None


def _notes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, after = _flat(old), _flat(new)
    changed = [name for name in after if after[name] != before.get(name)]
    removed = [name for name in before if name not in after]
    kept = [name for name in after if after[name] == before.get(name)]
    found = {"changed": changed, "removed": removed, "kept": kept}
    return [f"{verb} in agent.toml: {', '.join(names)}" for verb, names in found.items() if names]


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """Keys with the names of their tables, two levels deep."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}.{inner}": one for inner, one in value.items()}
        else:
            flat[key] = value
    return flat


def _old_config(before: str | None, kept: set[str], place: Place) -> list[Placement]:
    """A copy of an agent.toml that is written anew, beside it."""
    if before is None or before in kept:
        return []
    return [Placement(f"{systemd_unit.CONFIG}.old", before.encode(), 0o640, place.group, shown=False)]


def _unit(arguments: Any, place: Place, program: str) -> str:
    """The unit; device files that an earlier install was given stay."""
    path = under(place.root, systemd_unit.UNIT)
    kept = (
        systemd_unit.devices_of(path.read_text(encoding="utf-8"))
        if path.exists() and not arguments.force
        else []
    )
    return systemd_unit.unit(program, devices=dict.fromkeys([*kept, *arguments.device]))


def _reboots(arguments: Any, place: Place) -> bool:
    """Whether to have the polkit rule; an earlier install without it stays so."""
    installed = under(place.root, systemd_unit.UNIT).exists() and not arguments.force
    return not arguments.no_reboot and (not installed or under(place.root, systemd_unit.POLKIT).exists())
