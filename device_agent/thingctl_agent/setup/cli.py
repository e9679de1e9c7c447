"""The command ``thingctl-agent``.

argparse, because a device should install nothing more; and not even that for a plain
``run`` (:mod:`~thingctl_agent.runtime.options`).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from thingctl_agent.errors import AgentError, ConfigError
from thingctl_agent.runtime import lazy_imports
from thingctl_agent.runtime.options import add_settings, new_parser, overrides, read_plain, refuse
from thingctl_agent.setup.terminal import TERMINAL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from thingctl_agent.agent import Agent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed, 2 wrong settings."""
    lazy_imports.install()
    try:
        return TERMINAL.end(_carry_out(sys.argv[1:] if argv is None else argv))
    except SystemExit as ended:  # argparse's, after --help or a fault
        raise SystemExit(TERMINAL.end(ended.code if isinstance(ended.code, int) else 1)) from None


def _carry_out(argv: Sequence[str]) -> int:
    arguments = _plain_run(argv) or _parse(argv)
    try:
        code: int = arguments.function(arguments)
    except ConfigError as error:
        TERMINAL.complain(str(error))
        return 2
    except AgentError as error:
        TERMINAL.complain(str(error))
        return 1
    return code


def _plain_run(argv: Sequence[str]) -> Any:
    """``run`` with nothing but files and settings in full; argparse explains all the rest."""
    found = read_plain(argv[1:]) if argv and argv[0] == "run" else None
    if found is not None:
        found.function = _run
    return found


def _parse(argv: Sequence[str]) -> Any:
    parser, commands = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        refuse(commands[arguments.command], unknown)
    return arguments


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser, and those of the commands by name."""
    from thingctl_agent.agent import VERSION  # noqa: PLC0415
    from thingctl_agent.setup import install as installing  # noqa: PLC0415 - after the stand-ins

    parser = new_parser(prog="thingctl-agent")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    run = commands.add_parser("run", help="serve the actions of one or more Python files", allow_abbrev=False)
    run.add_argument(
        "files", nargs="*", metavar="FILE.py", help="files with an Agent in them; or handlers in the config"
    )
    add_settings(run)
    run.set_defaults(function=_run)

    check = commands.add_parser(
        "check", aliases=["doctor"], help="say what is wrong and how to mend it", allow_abbrev=False
    )
    check.add_argument("files", nargs="*", metavar="FILE.py", help="files with an Agent in them")
    add_settings(check)
    check.set_defaults(function=_check)

    install = commands.add_parser("install", help="make the agent a systemd service", allow_abbrev=False)
    add_settings(install)
    installing.add_arguments(install)
    install.set_defaults(function=installing.install)

    uninstall = commands.add_parser("uninstall", help="undo install", allow_abbrev=False)
    installing.add_uninstall_arguments(uninstall)
    uninstall.set_defaults(function=installing.uninstall)
    return parser, dict(commands.choices)


def _check(arguments: Any) -> int:
    from thingctl_agent.setup.diagnostics import check  # noqa: PLC0415

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
    from thingctl_agent.runtime.config import load  # noqa: PLC0415

    config = load(arguments.config, os.environ, **overrides(arguments))
    files = arguments.files or config.handlers
    if not files and not config.actions:
        raise ConfigError("nothing to serve: name a Python file, or enable built-in actions in the config")
    left = serve(_gather(files), config)
    from thingctl_agent.runtime import leaving  # noqa: PLC0415 - needed at the end only

    if left or leaving.threads_left():
        leaving.leave()
    return 0


def _gather(files: Sequence[str]) -> Agent:
    from thingctl_agent.agent import Agent  # noqa: PLC0415
    from thingctl_agent.setup.handler_loader import agents_in  # noqa: PLC0415

    agent = Agent()
    for file in files:
        for found in agents_in(file):
            agent.registry.extend(found.registry)
    return agent


if __name__ == "__main__":
    sys.exit(main())
