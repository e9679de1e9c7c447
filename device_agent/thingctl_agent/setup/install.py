"""``thingctl-agent install`` and ``uninstall``: makes the agent a service, and undoes that."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from thingctl_agent.errors import AgentError, ConfigError
from thingctl_agent.setup import service, systemd_unit
from thingctl_agent.setup.files import Placement, difference, put_all, under
from thingctl_agent.setup.planning import InstallPlan, Place, plan
from thingctl_agent.setup.terminal import TERMINAL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

_LIVE: Final = Path("/")
_PAST: Final = {"write": "wrote", "replace": "replaced"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``install``."""
    parser.add_argument("--handlers", action="append", default=[], metavar="FILE.py", help="copied to /etc")
    parser.add_argument(
        "--device", action="append", default=[], metavar="/dev/…", help="a device file for handlers"
    )
    parser.add_argument("--delete-bundle", action="store_true", help="delete the bundle file when it is used")
    parser.add_argument("--no-reboot", action="store_true", help="have no polkit rule for rebooting")
    parser.add_argument(
        "--force", action="store_true", help="write agent.toml anew; the old one is kept as agent.toml.old"
    )
    parser.add_argument("--program", metavar="PATH", help="thingctl-agent in the image (with --root)")
    _add_common(parser)


def add_uninstall_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``uninstall``."""
    parser.add_argument("--purge", action="store_true", help="remove config, journal and user, too")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and do nothing")
    parser.add_argument("--root", default="/", metavar="DIR", help="install files into an image, below DIR")


def install(arguments: Any) -> int:
    """Run ``install``; returns 0, or 2 when the service is not started. Raises :class:`AgentError`."""
    place = _place(arguments)
    todo = plan(arguments, place)
    if arguments.dry_run:
        _show(todo, place)
        return 0
    done = [(difference(place.root, file), file) for file in todo.files]
    if place.live:
        service.add_user()
        service.compile_packages()
    _guarded(lambda: put_all(place.root, [file for verb, file in done if verb]), "; no file was changed")
    for path in [under(place.root, path) for path in todo.unwanted]:
        if path.exists():
            _guarded(path.unlink)
            TERMINAL.say(f"removed {path}")
    _tell(todo, place, done)
    _spend_bundle(arguments)
    return _start(todo) if place.live else _finish_image(todo, place)


def uninstall(arguments: Any) -> int:
    """Run ``uninstall``; returns 0. Raises :class:`AgentError`."""
    place = _place(arguments)
    say = ("would remove {}" if arguments.dry_run else "removed {}").format
    if (
        place.live
        and service.runs_systemd()
        and not arguments.dry_run
        and under(place.root, systemd_unit.UNIT).exists()
    ):
        service.run("systemctl", "disable", "--now", service.SERVICE)
    paths = [
        systemd_unit.UNIT,
        systemd_unit.POLKIT,
        systemd_unit.WANTS,
        systemd_unit.SYSUSERS,
        systemd_unit.TMPFILES,
    ]
    paths += [systemd_unit.CONFIG_DIR, systemd_unit.STATE_DIR] if arguments.purge else []
    for path in [under(place.root, path) for path in paths]:
        if path.exists() or path.is_symlink():
            TERMINAL.say(say(path))
            if not arguments.dry_run:
                _guarded(functools.partial(_remove, path))
    if place.live and not arguments.dry_run:
        if service.runs_systemd():
            service.run("systemctl", "daemon-reload")
        if arguments.purge and service.has_user():
            service.run("userdel", systemd_unit.USER)
    if not arguments.purge:
        TERMINAL.say(
            f"kept {systemd_unit.CONFIG_DIR}, {systemd_unit.STATE_DIR} and the user {systemd_unit.USER}: "
            "--purge removes them"
        )
    return 0


def _place(arguments: Any) -> Place:
    live = Path(arguments.root) == Path("/")
    if live and not arguments.dry_run and os.geteuid() != 0:
        raise ConfigError("this writes to /etc: run it with sudo, or look first with --dry-run")
    return Place(_LIVE if live else Path(arguments.root), live)


def _show(todo: InstallPlan, place: Place) -> None:
    """Print what a dry run would do, with the content of what holds no secret."""
    if place.live:
        TERMINAL.say(f"would add the user {systemd_unit.USER}, if there is none")
    for file in todo.files:
        verb = difference(place.root, file)
        TERMINAL.say(f"would {verb or 'keep'} {under(place.root, file.path)} (mode {file.mode:04o})")
        if verb and file.shown:
            TERMINAL.say("".join(f"    {line}\n" for line in file.content.decode().splitlines()))
    for path in todo.unwanted:
        if under(place.root, path).exists():
            TERMINAL.say(f"would remove {under(place.root, path)}")
    for note in todo.notes:
        TERMINAL.say(f"would have {note}")
    if place.live:
        TERMINAL.say(f"would enable and restart {service.SERVICE}")


def _tell(todo: InstallPlan, place: Place, done: Sequence[tuple[str, Placement]]) -> None:
    for verb, file in done:
        if verb:
            TERMINAL.say(f"{_PAST[verb]} {under(place.root, file.path)}")
    for note in todo.notes:
        TERMINAL.say(note)
    if not any(verb for verb, _ in done):
        TERMINAL.say("every file was as it should be")


def _spend_bundle(arguments: Any) -> None:
    if not arguments.bundle:
        return
    if arguments.delete_bundle:
        _guarded(lambda: Path(arguments.bundle).unlink())
        TERMINAL.say(f"deleted {arguments.bundle}")
    else:
        TERMINAL.say(f"{arguments.bundle} is not needed any more and holds a secret: delete it")


def _start(todo: InstallPlan) -> int:
    check = f"{todo.program} check --config {systemd_unit.CONFIG}"
    if not service.runs_systemd():
        TERMINAL.complain(
            "the files are in place; systemd does not run here: the service is not enabled and not started.\n"
            f"  Enable it where systemd runs:  systemctl enable --now {service.SERVICE}\n"
            f"  Or start the agent yourself:   {todo.program} run --config {systemd_unit.CONFIG}"
        )
        return 2
    for words in (("daemon-reload",), ("enable", "--quiet", service.SERVICE), ("restart", service.SERVICE)):
        service.run("systemctl", *words)
    TERMINAL.say(f"running; see whether the broker accepts it: {check}")
    return 0


def _finish_image(todo: InstallPlan, place: Place) -> int:
    wants = under(place.root, systemd_unit.WANTS)
    _guarded(lambda: _link(wants, f"../{service.SERVICE}"))
    TERMINAL.say(f"enabled {service.SERVICE}; the user {systemd_unit.USER} is made at the image's first boot")
    if not under(place.root, todo.program).exists():
        TERMINAL.say(
            f"not done: {under(place.root, todo.program)} is not there; make it, or give --program PATH"
        )
    TERMINAL.say(f"the agent starts when the image in {place.root} boots; nothing was started here")
    return 0


def _link(link: Path, target: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _guarded(do: Callable[[], object], after: str = "") -> None:
    try:
        do()
    except LookupError as error:  # of a group
        raise AgentError(f"{error}{after}") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise AgentError(f"{where}{error.strerror}{after}") from None
