"""The command ``thingctl-agent``.

argparse, because a device should install nothing more; and not even that for a plain
``run``, because an agent that runs for years need not carry its 0.7 MB.
"""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from thingctl_agent import lean
from thingctl_agent.errors import AgentError, ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from thingctl_agent.agent import Agent

SETTINGS: Final = {
    "config": ("FILE", "settings in TOML (or THINGCTL_CONFIG)"),
    "thing": ("NAME", "the name of this thing (or THINGCTL_THING)"),
    "url": ("URL", "the broker, mqtt://host:port or mqtts://host:port (or THINGCTL_MQTT_URL)"),
    "username": ("NAME", "MQTT username, if the broker wants one (or THINGCTL_USERNAME)"),
    "password-file": ("FILE", "file that holds the password"),
    "state-dir": ("DIR", "where the journal is kept (or THINGCTL_STATE_DIR)"),
    "topic-root": ("TOPIC", "root of the command topics"),
    "presence": ("on|off", "tell brokers behind an MQTT cluster when this thing comes and goes"),
    "wall-clock": (
        "auto|trust|distrust",
        "whether the device's clock may judge a command's age when the broker does not say its time",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed, 2 wrong settings."""
    lean.install()
    argv = sys.argv[1:] if argv is None else argv
    arguments: Any = _plain_run(argv) or _parser().parse_args(argv)
    try:
        code: int = arguments.function(arguments)
    except ConfigError as error:
        print(f"thingctl-agent: {error}", file=sys.stderr)
        return 2
    except AgentError as error:
        print(f"thingctl-agent: {error}", file=sys.stderr)
        return 1
    return code


def _plain_run(argv: Sequence[str]) -> SimpleNamespace | None:
    """``run`` with nothing but files and settings in full; argparse explains all the rest."""
    if not argv or argv[0] != "run":
        return None
    found = SimpleNamespace(function=_run, files=[], **{_attribute(name): None for name in SETTINGS})
    words = iter(argv[1:])
    for word in words:
        name, is_there, value = word[2:].partition("=")
        if not word.startswith("-"):
            found.files.append(word)
        elif not word.startswith("--") or name not in SETTINGS:
            return None
        else:
            value = value if is_there else next(words, "-")
            if value.startswith("-"):
                return None
            setattr(found, _attribute(name), value)
    return found


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - see above

    from thingctl_agent import install as installing  # noqa: PLC0415 - after the stand-ins
    from thingctl_agent.agent import VERSION  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="thingctl-agent", description="Answer commands sent over MQTT.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve the actions of one or more Python files")
    run.add_argument(
        "files", nargs="*", metavar="FILE.py", help="files with an Agent in them; or handlers in the config"
    )
    add_settings(run)
    run.set_defaults(function=_run)

    check = commands.add_parser("check", help="say in words what is wrong")
    check.add_argument("files", nargs="*", metavar="FILE.py", help="files with an Agent in them")
    add_settings(check)
    check.set_defaults(function=_check)

    install = commands.add_parser("install", help="make the agent a systemd service")
    add_settings(install)
    installing.add_arguments(install)
    install.set_defaults(function=installing.install)

    uninstall = commands.add_parser("uninstall", help="undo install")
    installing.add_uninstall_arguments(uninstall)
    uninstall.set_defaults(function=installing.uninstall)
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command with a connection has."""
    for name, (metavar, text) in SETTINGS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)


def overrides(arguments: Any) -> dict[str, Any]:
    """The settings among the arguments."""
    return {(name := _attribute(flag)): getattr(arguments, name) for flag in SETTINGS if flag != "config"}


def _attribute(flag: str) -> str:
    return flag.replace("-", "_")


def _check(arguments: Any) -> int:
    from thingctl_agent.doctor import check  # noqa: PLC0415

    return check(arguments.config, overrides(arguments), arguments.files)


def _run(arguments: Any) -> int:
    # Until the loop takes the signals nothing has begun yet, and there is nothing to tell.
    before = {number: signal.signal(number, _leave_at_once) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _serve(arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_at_once(*_: object) -> None:
    os._exit(0)


def _serve(arguments: Any) -> int:
    from thingctl_agent.agent import serve  # noqa: PLC0415 - after the stand-ins
    from thingctl_agent.config import load  # noqa: PLC0415

    config = load(arguments.config, os.environ, **overrides(arguments))
    files = arguments.files or config.handlers
    if not files and not config.actions:
        raise ConfigError("nothing to serve: name a Python file, or enable built-in actions in the config")
    left = serve(_gather(files), config)
    from thingctl_agent import leaving  # noqa: PLC0415 - needed at the end only

    if left or leaving.threads_left():
        leaving.leave()
    return 0


def _gather(files: Sequence[str]) -> Agent:
    from thingctl_agent.agent import Agent  # noqa: PLC0415
    from thingctl_agent.sources import agents_in  # noqa: PLC0415

    agent = Agent()
    for file in files:
        for found in agents_in(file):
            agent.registry.extend(found.registry)
    return agent


if __name__ == "__main__":
    sys.exit(main())
