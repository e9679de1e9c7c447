"""``thingctl install`` and ``uninstall``: makes the broker a service of systemd, and undoes that."""

from __future__ import annotations

import os
import pwd
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

import typer

from thingctl_broker.cli import unit
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings_file import CannotChange, SettingKey, set_values, value_of
from thingctl_broker.cli.steps import (
    Step,
    Target,
    carry_out,
    command,
    copy,
    link,
    removal,
    run,
    told,
    write,
)
from thingctl_broker.system.addresses import is_loopback, parse_address
from thingctl_broker.system.paths import ADMIN_TOKEN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA_DIR: Final = SettingKey("", "data_dir")
MQTT_BIND: Final = SettingKey("mqtt", "bind")
HTTP_BIND: Final = SettingKey("http", "bind")
PUBLIC_URL: Final = SettingKey("mqtt", "public_url")

FRESH: Final = {MQTT_BIND: "0.0.0.0:8883", HTTP_BIND: "0.0.0.0:8443"}
"""Where a service listens that is installed for the first time."""

_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 the unit hides them

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and do nothing.")]
Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="Install files into an image, below DIR.")]
Address = Annotated[str | None, typer.Option(metavar="HOST:PORT")]


class Asked(NamedTuple):
    """What the command line asks for."""

    tls_dir: Path | None
    public_url: str
    http: str
    mqtt: str
    config: Path | None


class Plan(NamedTuple):
    """The settings as they are to be, and what is said about them."""

    text: str
    settings: dict[str, Any]
    notes: list[str]

    def value(self, key: SettingKey) -> str:
        """Return a setting; empty when it has its default."""
        return str(value_of(self.settings, key) or "")


def install(
    *,
    tls_dir: Annotated[
        Path | None,
        typer.Option("--tls-dir", metavar="DIR", help="What thingctl tls init made; without it, made here."),
    ] = None,
    public_url: Annotated[
        str, typer.Option("--public-url", metavar="URL", help="Where devices reach the broker: mqtts://….")
    ] = "",
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where operators connect (0.0.0.0:8443).")
    ] = "",
    mqtt: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where devices connect (0.0.0.0:8883).")
    ] = "",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings to begin with: they replace broker.toml.")
    ] = None,
    dry_run: DryRun = False,
    root: Root = Path("/"),
) -> None:
    """Make the broker a service: user, data directory, settings, TLS, a hardened systemd unit.

    Again: applies what is given, keeps the rest, and restarts the service.
    """
    asked = Asked(tls_dir, public_url, http, mqtt, config)
    _check_person(dry_run=dry_run, root=root)
    program = _program(root)
    plan, steps = planned(asked, program, root)
    carry_out(steps, dry_run=dry_run)
    if not dry_run and root == Path("/"):
        _wait_and_tell(plan)


def uninstall(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove settings, certificates, all data and the user, too.")
    ] = False,
    dry_run: DryRun = False,
    root: Root = Path("/"),
) -> None:
    """Remove the service. Settings and data stay, unless --purge is given."""
    _check_person(dry_run=dry_run, root=root)
    carry_out(_removals(root, purge=purge), dry_run=dry_run)


def planned(asked: Asked, program: str, root: Path) -> tuple[Plan, list[Step]]:
    """Return the settings to be and the steps to take; raises :class:`Failure` before any is taken."""
    is_live = root == Path("/")
    target = Target(root, unit.USER if is_live else None)
    plan = _plan(asked, target)
    steps = [_user_step(), command(sys.executable, "-m", "compileall", "-q", _library())] if is_live else []
    steps += map(told, plan.notes)
    steps += _tls_steps(asked, plan, target)
    before = target.path(unit.CONFIG)
    if asked.config is not None and before.exists():
        steps.append(copy(target, before, f"{unit.CONFIG}.before", 0o640))
    steps.append(write(target, unit.CONFIG, plan.text, 0o640, is_secret="secret" in plan.text))
    steps.append(write(target, unit.UNIT, unit.unit(program, low_ports=_has_low_ports(plan)), 0o644))
    steps += _live_steps(program) if is_live else _image_steps(target, plan)
    return plan, steps


def _plan(asked: Asked, target: Target) -> Plan:
    before, notes = _text_before(asked, target)
    try:
        settings = tomllib.loads(before)
        values = _wanted(asked, settings, is_fresh=not notes)
        text = set_values(before, values) if values else before
    except (ValueError, CannotChange) as error:
        raise Failure(Exit.USAGE, f"{asked.config or target.path(unit.CONFIG)}: {error}") from None
    for key, value in values.items() if notes else ():
        old = value_of(settings, key)
        notes.append(
            f"keep {key} = {value}" if old == value else f"change {key}: {old or 'unset'} -> {value}"
        )
    _check(text)
    return Plan(text, tomllib.loads(text), notes)


def _text_before(asked: Asked, target: Target) -> tuple[str, list[str]]:
    """The settings to begin with, and what to say of it: nothing for a first installation."""
    place = target.path(unit.CONFIG)
    try:
        if asked.config is not None:
            return asked.config.read_text("utf-8"), [f"take the settings of {asked.config}"]
        if place.exists():
            return place.read_text("utf-8"), [f"keep {place} but for what is given"]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Failure(Exit.USAGE, f"{asked.config or place} cannot be read: {reason}") from None
    return unit.first_config(), []


def _wanted(asked: Asked, settings: dict[str, Any], *, is_fresh: bool) -> dict[SettingKey, str]:
    """What is to be set: what is given, and what a service cannot do without."""
    data_dir = value_of(settings, DATA_DIR) or unit.STATE_DIR
    if data_dir != unit.STATE_DIR:
        raise CannotChange(
            f"data_dir is {data_dir}, and the service may write below {unit.STATE_DIR} only: move the data "
            "there and take the line out"
        )
    if "link" in settings or "store" in settings:
        raise CannotChange("these are settings of a cluster's worker: see configs/cluster for its unit")
    values = {DATA_DIR: unit.STATE_DIR, **(FRESH if is_fresh else {})}
    given = {MQTT_BIND: asked.mqtt, HTTP_BIND: asked.http, PUBLIC_URL: asked.public_url}
    values |= {key: value for key, value in given.items() if value}
    if asked.tls_dir is not None or _needs_tls(settings, values):
        from thingctl_broker.cli import service_tls  # noqa: PLC0415 heavy
        from thingctl_broker.security.certificate_authority import CA_CERT  # noqa: PLC0415 heavy

        values |= service_tls.settings(has_ca=asked.tls_dir is None or (asked.tls_dir / CA_CERT).is_file())
    return values


def _needs_tls(settings: dict[str, Any], values: dict[SettingKey, str]) -> bool:
    if value_of(settings, SettingKey("", "insecure_bind")):
        return False
    return any(
        not is_loopback(
            parse_address(str(values.get(bind) or value_of(settings, bind) or "127.0.0.1:0")).host
        )
        and not value_of(settings, SettingKey(bind.table, "tls_cert"))
        for bind in (MQTT_BIND, HTTP_BIND)
    )


def _check(text: str) -> None:
    """Say now what would keep the service from starting."""
    import msgspec  # noqa: PLC0415 the client commands must start fast

    from thingctl_broker.app.config import Settings, check  # noqa: PLC0415
    from thingctl_broker.errors import ConfigurationError  # noqa: PLC0415

    try:
        check(msgspec.toml.decode(text, type=Settings))
    except (ConfigurationError, msgspec.DecodeError) as error:
        raise Failure(Exit.USAGE, f"the broker would not start: {error}") from None


def _tls_steps(asked: Asked, plan: Plan, target: Target) -> list[Step]:
    from thingctl_broker.cli import service_tls  # noqa: PLC0415 heavy

    if asked.tls_dir is not None:
        return service_tls.copied(asked.tls_dir, target)
    if not plan.value(SettingKey("http", "tls_cert")).startswith(f"{unit.TLS}/"):
        return []
    if target.group is None and not target.path(unit.TLS).exists():
        raise Failure(
            Exit.USAGE,
            "an image does not know the name of its machine: make certificates for it with "
            "thingctl tls init --dir DIR --name HOST, and give --tls-dir DIR",
        )
    return service_tls.made(target, plan.value(PUBLIC_URL))


def _has_low_ports(plan: Plan) -> bool:
    ports = [parse_address(plan.value(bind)).port for bind in (MQTT_BIND, HTTP_BIND) if plan.value(bind)]
    return any(0 < port < unit.FIRST_UNPRIVILEGED_PORT for port in ports)


def _live_steps(program: str) -> list[Step]:
    command_link = Path(unit.COMMAND)
    is_ours = not command_link.exists() or command_link.is_symlink()
    return [
        *([link(Target(Path("/"), None), unit.COMMAND, program)] if is_ours else []),
        command("systemctl", "daemon-reload"),
        command("systemctl", "enable", unit.SERVICE),
        Step(f"run systemctl restart {unit.SERVICE} and wait until it serves", _restart),
    ]


def _restart() -> None:
    import subprocess  # noqa: PLC0415 beside its only use

    try:
        run("systemctl", "restart", unit.SERVICE)
    except subprocess.CalledProcessError:
        raise Failure(
            Exit.UNREACHABLE, f"the broker did not start; its reason: journalctl -u {unit.SERVICE} -n 30"
        ) from None


def _image_steps(target: Target, plan: Plan) -> list[Step]:
    secrets = [unit.CONFIG]
    key = plan.value(SettingKey("http", "tls_key"))
    secrets += [key] if key.startswith(unit.TLS) else []
    return [
        link(target, unit.WANTED, unit.UNIT),
        write(target, unit.SYSUSERS, unit.sysusers(), 0o644),
        write(target, unit.TMPFILES, unit.tmpfiles(secrets), 0o644),
        told(f"an image: systemd makes the user {unit.USER} and lets it read its files when the image boots"),
    ]


def _removals(root: Path, *, purge: bool) -> Iterator[Step]:
    is_live = root == Path("/")
    target = Target(root, None)
    if is_live and target.path(unit.UNIT).exists():
        yield command("systemctl", "disable", "--now", unit.SERVICE)
    for path in (unit.UNIT, unit.WANTED, unit.SYSUSERS, unit.TMPFILES):
        if os.path.lexists(target.path(path)):
            yield removal(target.path(path))
    command_link = target.path(unit.COMMAND)
    if command_link.is_symlink() and str(command_link.readlink()) == str(Path(sys.prefix) / "bin/thingctl"):
        yield removal(command_link)
    if is_live:
        yield command("systemctl", "daemon-reload")
    kept = (unit.CONFIG_DIR, unit.STATE_DIR)
    if not purge:
        yield told(f"keep {' and '.join(kept)} (--purge removes them)")
        return
    yield from (removal(target.path(path)) for path in kept if target.path(path).exists())
    if is_live and _user_exists():
        yield command("userdel", unit.USER)


def _user_step() -> Step:
    def add() -> None:
        if not _user_exists():
            options = ["--system", "--user-group", "--no-create-home", "--home-dir", unit.STATE_DIR]
            run("useradd", *options, "--shell", "/usr/sbin/nologin", unit.USER)

    return Step(f"add the user {unit.USER} unless it exists", add)


def _user_exists() -> bool:
    try:
        pwd.getpwnam(unit.USER)
    except KeyError:
        return False
    return True


def _check_person(*, dry_run: bool, root: Path) -> None:
    if not dry_run and root == Path("/") and os.geteuid() != 0:
        raise Failure(Exit.USAGE, "this writes to /etc: run it with sudo, or look first with --dry-run")


def _library() -> str:
    return str(Path(sys.prefix) / "lib")


def _program(root: Path) -> str:
    """The program that the unit starts; raises :class:`Failure` when its user could not read it."""
    program = str(Path(sys.prefix) / "bin" / "thingctl")
    if root != Path("/"):
        return program
    for path in (program, str(Path(sys.base_prefix).resolve())):
        if f"{path}/".startswith(_HIDDEN):
            raise Failure(
                Exit.USAGE,
                f"{path} is where the service cannot read it. Install thingctl into /opt, with the Python of "
                "the system, and go on from there:\n"
                "  sudo /usr/bin/python3 -m venv /opt/thingctl\n"
                "  sudo /opt/thingctl/bin/pip install '.[broker]'   # in a checkout\n"
                "  sudo /opt/thingctl/bin/thingctl install",
            )
    return program


def _wait_and_tell(plan: Plan) -> None:
    from thingctl_broker.cli.installed import answers, installed  # noqa: PLC0415 beside its only use

    found = installed()
    if found is None or not answers(found, 30.0):
        where = "" if found is None else f" at {found.url}"
        raise Failure(
            Exit.UNREACHABLE,
            f"the service does not answer{where}; its log: journalctl -u {unit.SERVICE} -n 30",
        )
    print(f"\n{unit.SERVICE} serves:")
    lines = [
        ("devices", plan.value(PUBLIC_URL) or _mqtt_url(plan, found.public_url)),
        ("console", f"{found.public_url}/"),
        ("sign in", "sudo thingctl console"),
        ("token", f"{unit.STATE_DIR}/{ADMIN_TOKEN_FILE} (the admin token; root reads it)"),
    ]
    if found.ca:
        lines.append(("trust", f"{found.ca} (for browsers; other machines set THINGCTL_CA to a copy)"))
    lines += [
        ("log", f"journalctl -u {unit.SERVICE} -f"),
        ("next", "sudo thingctl things add NAME --bundle NAME.bundle"),
    ]
    for name, value in lines:
        print(f"  {name:<9}{value}")


def _mqtt_url(plan: Plan, http_url: str) -> str:
    scheme = "mqtts" if plan.value(SettingKey("mqtt", "tls_cert")) else "mqtt"
    address = parse_address(plan.value(MQTT_BIND) or "127.0.0.1:1883")
    host = urlsplit(http_url).netloc.rpartition(":")[0]
    return f"{scheme}://{host}:{address.port}"
