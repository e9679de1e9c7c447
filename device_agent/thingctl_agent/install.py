"""``thingctl-agent install`` and ``uninstall``: makes the agent a service, and undoes that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from thingctl_agent import unit
from thingctl_agent.config import load
from thingctl_agent.errors import ConfigError
from thingctl_agent.settings import read_bundle
from thingctl_agent.sources import agents_in
from thingctl_agent.terminal import TERMINAL
from thingctl_protocol.bundle import Bundle

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_UNREACHABLE: Final = ("/home/", "/root/", "/tmp/")  # noqa: S108 - the unit's user cannot read below these


class Step(NamedTuple):
    """One thing to do: what to say about it, and how to do it."""

    text: str
    do: Callable[[], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``install``."""
    parser.add_argument("--handlers", action="append", default=[], metavar="FILE.py", help="copied to /etc")
    parser.add_argument(
        "--device", action="append", default=[], metavar="/dev/…", help="a device file for handlers"
    )
    parser.add_argument("--no-reboot", action="store_true", help="write no polkit rule for rebooting")
    parser.add_argument("--force", action="store_true", help="write the config anew even if there is one")
    _add_common(parser)


def add_uninstall_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``uninstall``."""
    parser.add_argument("--purge", action="store_true", help="remove config, journal and user, too")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and do nothing")
    parser.add_argument("--root", default="/", metavar="DIR", help="install files into an image, below DIR")


def install(arguments: Any) -> int:
    """Run ``install``; raises :class:`ConfigError`."""
    steps = _install_steps(arguments)
    return _carry_out(steps, arguments)


def uninstall(arguments: Any) -> int:
    """Run ``uninstall``."""
    return _carry_out(_uninstall_steps(arguments), arguments)


def _carry_out(steps: list[Step], arguments: Any) -> int:
    if not arguments.dry_run and arguments.root == "/" and os.geteuid() != 0:
        raise ConfigError("this writes to /etc: run it with sudo, or look first with --dry-run")
    for step in steps:
        TERMINAL.say(("would " if arguments.dry_run else "") + step.text)
        if not arguments.dry_run:
            try:
                step.do()
            except OSError as error:
                raise ConfigError(f"{error.filename or step.text}: {error.strerror}") from None
            except subprocess.CalledProcessError as error:
                raise ConfigError(f"{' '.join(error.cmd)} failed with {error.returncode}") from None
    return 0


def _install_steps(arguments: Any) -> list[Step]:
    program = str(Path(sys.prefix) / "bin" / "thingctl-agent")
    root = Path(arguments.root)
    live = arguments.root == "/"
    if live and program.startswith(_UNREACHABLE):
        raise ConfigError(
            f"{program} is where the agent's own user cannot read it; install into /opt:\n"
            "  sudo python3 -m venv /opt/thingctl-agent\n"
            "  sudo /opt/thingctl-agent/bin/pip install thingctl\n"
            "  sudo /opt/thingctl-agent/bin/thingctl-agent install --thing … --url …"
        )
    for file in arguments.handlers:
        agents_in(file)  # raises, in words, what would otherwise keep the service from starting
    steps = []
    if live:
        steps += [_user_step(), _compile_step()]
    steps += _config_steps(arguments, root)
    steps.append(_file(root, unit.UNIT, unit.unit(program, devices=arguments.device), 0o644))
    if not arguments.no_reboot:
        steps.append(_file(root, unit.POLKIT, unit.polkit_rule(), 0o644))
    if live:
        steps += [
            _command("systemctl", "daemon-reload"),
            _command("systemctl", "enable", "thingctl-agent.service"),
            _command("systemctl", "restart", "thingctl-agent.service"),
        ]
    return steps


def _config_steps(arguments: Any, root: Path) -> list[Step]:
    path = _under(root, unit.CONFIG)
    group = unit.USER if arguments.root == "/" else None
    if path.exists() and not arguments.force:
        return [Step(f"keep {path} (--force writes it anew)", lambda: None)]
    names = [f"{unit.CONFIG_DIR}/{Path(file).name}" for file in arguments.handlers]
    # What is given besides goes before the bundle.
    bundle = read_bundle(arguments.bundle) if arguments.bundle else Bundle("", "", topic_root="")
    settings: dict[str, str | bool] = {
        "thing": arguments.thing or bundle.thing or os.environ.get("THINGCTL_THING") or "",
        "url": arguments.url or bundle.url,
        "username": arguments.username or bundle.username,
        "topic_root": arguments.topic_root or bundle.topic_root,
        "wall_clock": arguments.wall_clock or "",
        "presence": arguments.presence or ("on" if bundle.presence else ""),
    }
    secrets = []
    copies = list(zip(arguments.handlers, names, [0o644] * len(names), strict=True))
    if arguments.password_file:
        settings["password_file"] = kept = f"{unit.CONFIG_DIR}/password"
        copies.append((arguments.password_file, kept, 0o640))
    elif bundle.password:
        settings["password_file"] = kept = f"{unit.CONFIG_DIR}/password"
        secrets.append((kept, bundle.password))
    tls = {}
    for key in ("ca", "cert", "key"):
        if given := getattr(arguments, key):
            tls[key] = f"{unit.CONFIG_DIR}/{key}.pem"
            copies.append((given, tls[key], 0o640))
        elif text := getattr(bundle, key):
            tls[key] = f"{unit.CONFIG_DIR}/{key}.pem"
            secrets.append((tls[key], text))
    checked = {key: value for key, value in settings.items() if value and key != "password_file"}
    settings["presence"] = load(None, {}, **checked, tls=tls).presence  # raises what is wrong with them
    text = unit.config_file(settings, names, tls)
    return [
        *(_copy(Path(source), root, target, mode, group) for source, target, mode in copies),
        *(_secret(root, target, text, group) for target, text in secrets),
        _file(root, unit.CONFIG, text, 0o640, group),
    ]


def _uninstall_steps(arguments: Any) -> list[Step]:
    root = Path(arguments.root)
    live = arguments.root == "/"
    steps = []
    if live and _under(root, unit.UNIT).exists():
        steps.append(_command("systemctl", "disable", "--now", "thingctl-agent.service"))
    steps += [_removal(_under(root, path)) for path in (unit.UNIT, unit.POLKIT)]
    if arguments.purge:
        steps += [_removal(_under(root, path)) for path in (unit.CONFIG_DIR, unit.STATE_DIR)]
    if live:
        steps.append(_command("systemctl", "daemon-reload"))
        if arguments.purge:
            steps.append(_command("userdel", unit.USER))
    return steps


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _user_step() -> Step:
    def add() -> None:
        import pwd  # noqa: PLC0415 - beside its only use

        try:
            pwd.getpwnam(unit.USER)
        except KeyError:
            options = ["--system", "--user-group", "--no-create-home", "--home-dir", unit.STATE_DIR]
            _run("useradd", *options, "--shell", "/usr/sbin/nologin", unit.USER)

    return Step(f"add the user {unit.USER}, if there is none", add)


def _compile_step() -> Step:
    # The service's user cannot write bytecode, and without it a start takes four times as long.
    return _command(sys.executable, "-m", "compileall", "-q", str(Path(sys.prefix) / "lib"))


def _file(root: Path, path: str, text: str, mode: int, group: str | None = None) -> Step:
    target = _under(root, path)

    def write() -> None:
        _put(target, text.encode(), mode, group)

    shown = "".join(f"    {line}\n" for line in text.splitlines())
    return Step(f"write {target} (mode {mode:04o}):\n{shown}", write)


def _copy(source: Path, root: Path, path: str, mode: int, group: str | None) -> Step:
    target = _under(root, path)
    return Step(
        f"copy {source} to {target} (mode {mode:04o})", lambda: _put(target, source.read_bytes(), mode, group)
    )


def _secret(root: Path, path: str, text: str, group: str | None) -> Step:
    target = _under(root, path)
    return Step(
        f"write {target} from the bundle (mode 0640)", lambda: _put(target, text.encode(), 0o640, group)
    )


def _put(target: Path, content: bytes, mode: int, group: str | None) -> None:
    """Write a file whole or not at all; nobody can read it before it has its mode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if group is not None:
            shutil.chown(new, group=group)
        os.fchmod(file.fileno(), mode)
    new.replace(target)


def _removal(path: Path) -> Step:
    def remove() -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    return Step(f"remove {path}", remove)


def _command(*command: str) -> Step:
    return Step(f"run {' '.join(command)}", lambda: _run(*command))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True)  # noqa: S603 - fixed words and the program's own path
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} is not installed here") from None
