"""The command ``thingctl-agent``. argparse, because a device should install nothing more."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from thingctl_agent import lean
from thingctl_agent.errors import AgentError, ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from thingctl_agent.agent import Agent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed, 2 wrong settings."""
    lean.install()
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.function(arguments)
    except ConfigError as error:
        print(f"thingctl-agent: {error}", file=sys.stderr)
        return 2
    except AgentError as error:
        print(f"thingctl-agent: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - after the stand-ins

    from thingctl_agent.agent import VERSION  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="thingctl-agent", description="Answer commands sent over MQTT.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve the actions of one or more Python files")
    run.add_argument(
        "files", nargs="*", metavar="FILE.py", help="files with an Agent in them; or handlers in the config"
    )
    _settings(run)
    run.set_defaults(function=_run)
    return parser


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings in TOML (or THINGCTL_CONFIG)")
    parser.add_argument("--thing", metavar="NAME", help="the name of this thing (or THINGCTL_THING)")
    parser.add_argument(
        "--url", help="the broker, mqtt://host:port or mqtts://host:port (or THINGCTL_MQTT_URL)"
    )
    parser.add_argument("--username", help="MQTT username, if the broker wants one (or THINGCTL_USERNAME)")
    parser.add_argument("--password-file", metavar="FILE", help="file that holds the password")
    parser.add_argument(
        "--state-dir", metavar="DIR", help="where the journal is kept (or THINGCTL_STATE_DIR)"
    )
    parser.add_argument("--topic-root", metavar="TOPIC", help="root of the command topics")
    parser.add_argument(
        "--wall-clock",
        choices=["auto", "trust", "distrust"],
        help="whether the device's clock can judge a command's age when the broker does not say its time",
    )


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings among the arguments."""
    names = ("thing", "url", "username", "password_file", "state_dir", "topic_root", "wall_clock")
    return {name: getattr(arguments, name) for name in names}


def _run(arguments: argparse.Namespace) -> int:
    from thingctl_agent.agent import leave, serve  # noqa: PLC0415 - after the stand-ins
    from thingctl_agent.config import load  # noqa: PLC0415

    config = load(arguments.config, os.environ, **overrides(arguments))
    files = arguments.files or config.handlers
    if not files and not config.actions:
        raise ConfigError("nothing to serve: name a Python file, or enable built-in actions in the config")
    if serve(_gather(files), config):
        leave()
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
