"""The options that every command with a connection has, read with argparse and without.

argparse needs 0.7 MB, which an agent that runs for years need not carry: :func:`read_plain`
reads what is spelled out in full, and argparse all else.
"""

from __future__ import annotations

import contextlib
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from thingctl_agent.core import hints
from thingctl_agent.runtime.settings import TLS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

SETTINGS: Final = {
    "config": ("FILE", "settings in TOML (or THINGCTL_CONFIG)"),
    "bundle": ("FILE", "what 'thingctl things add NAME --bundle FILE' wrote (or THINGCTL_BUNDLE)"),
    "thing": ("NAME", "the name of this thing (or THINGCTL_THING)"),
    "url": ("URL", "the broker, mqtt://host:port or mqtts://host:port (or THINGCTL_MQTT_URL)"),
    "username": ("NAME", "MQTT user name; the thing's name if not given (or THINGCTL_USERNAME)"),
    "password-file": (
        "FILE",
        "file that holds the password (or THINGCTL_PASSWORD_FILE, or the password in THINGCTL_PASSWORD)",
    ),
    "ca": ("FILE", "certificate of the broker's authority, PEM (or THINGCTL_CA)"),
    "cert": ("FILE", "this device's certificate, PEM (or THINGCTL_CERT)"),
    "key": ("FILE", "its private key, PEM (or THINGCTL_KEY)"),
    "state-dir": ("DIR", "where the journal is kept (or THINGCTL_STATE_DIR)"),
    "topic-root": ("TOPIC", "root of the command topics (or THINGCTL_TOPIC_ROOT)"),
    "presence": (
        "on|off",
        "tell brokers behind an MQTT cluster when this thing comes and goes (or THINGCTL_PRESENCE)",
    ),
    "wall-clock": (
        "auto|trust|distrust",
        "may the clock judge a command's age if the broker does not say its time? (or THINGCTL_WALL_CLOCK)",
    ),
}


def read_plain(words: Sequence[str]) -> SimpleNamespace | None:
    """Read files and options that are spelled out in full; ``None`` when there is anything else."""
    found = SimpleNamespace(files=[], **{_attribute(name): None for name in SETTINGS})
    rest = iter(words)
    for word in rest:
        name, is_there, value = word[2:].partition("=")
        if not word.startswith("-"):
            found.files.append(word)
        elif not word.startswith("--") or name not in SETTINGS:
            return None
        else:
            value = value if is_there else next(rest, "-")
            if value.startswith("-"):
                return None
            setattr(found, _attribute(name), value)
    return found


def read_script(words: Sequence[str]) -> Any:
    """Read the options of a program that calls ``agent.run()``; ends it for ``--help`` and faults."""
    plain = read_plain(words)
    if plain is not None and not plain.files:
        return plain
    parser = new_parser(allow_abbrev=False)
    add_settings(parser)
    found, unknown = parser.parse_known_args(words)
    if unknown:
        refuse(parser, unknown)
    return found


def new_parser(**fields: Any) -> argparse.ArgumentParser:
    """Make a parser. Output that it loses does not end it, as in the latest releases of Python 3.11."""
    import argparse  # noqa: PLC0415 - see above

    class Parser(argparse.ArgumentParser):
        def _print_message(self, message: str, file: Any = None) -> None:
            with contextlib.suppress(OSError):
                super()._print_message(message, file)

    return Parser(description="Answer commands sent over MQTT.", **fields)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    for name, (metavar, text) in SETTINGS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)


def overrides(arguments: Any) -> dict[str, Any]:
    """Return the options as settings; those not given are ``None``."""
    given = {_attribute(name): getattr(arguments, _attribute(name)) for name in SETTINGS if name != "config"}
    return {"tls": {key: given.pop(key) for key in TLS}, **given}


def refuse(parser: argparse.ArgumentParser, unknown: list[str]) -> NoReturn:
    """End the process with exit code 2: these words are no options of this parser's command."""
    word = unknown[0].partition("=")[0]
    if word == "--password":
        parser.error("no such option: --password; other users can read a command line. "
                     "Give THINGCTL_PASSWORD, --password-file or --bundle")  # fmt: skip
    if not word.startswith("-"):
        parser.error(f"unexpected argument: {word}")
    known = [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001 - no other way
    parser.error(f"no such option: {word}{hints.did_you_mean(word, known)}")


def is_program(caller: dict[str, Any]) -> bool:
    """Whether the module with these globals is the file that Python was started with.

    Then the command line is its own. In a test runner, an interpreter, a notebook or a program
    that imports the module, the command line is another's.
    """
    file, program = caller.get("__file__"), sys.argv[0] if sys.argv else ""
    return (
        caller.get("__name__") == "__main__"
        and isinstance(file, str)
        and os.path.realpath(file) == os.path.realpath(program)
    )


def _attribute(flag: str) -> str:
    return flag.replace("-", "_")
