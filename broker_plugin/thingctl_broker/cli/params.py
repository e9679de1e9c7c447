"""What a command takes from the command line, to one thing or to many; above all its params.

Those are put together as text: each number goes on digit for digit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from thingctl_broker.cli import exact_json
from thingctl_broker.cli.exits import Exit, Failure

PARAMS_MAX: Final = 1024 * 1024
"""Characters that are read of a file or of standard input; the broker takes fewer."""

Texts = Annotated[
    list[str] | None,
    typer.Option("--text", "-f", metavar="KEY=TEXT", help="A param that is text; may be repeated."),
]
Ttl = Annotated[int | None, typer.Option("--ttl", metavar="SECONDS", help="How long it may take.", min=1)]
Wait = Annotated[
    bool, typer.Option("--wait", help="Show what happens until it has ended; Ctrl-C leaves it running.")
]
Key = Annotated[
    str,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="A name for this command: sent again with it, it is not carried out again.",
    ),
]


def encode_params(params: str, values: list[str], texts: list[str] | None = None) -> str:
    """Make the params of a command: the fields of a JSON object, and further fields.

    ``params``: a JSON object, ``@FILE`` or ``-``. ``values``: ``KEY=VALUE`` (a value that is JSON is
    JSON, else text) and ``KEY:=JSON``. ``texts``: ``KEY=TEXT``, always text.

    >>> encode_params('{"unit": "C"}', ["value=24.50", "mode=eco"], ["version=1.10"])
    '{"unit": "C","value":24.50,"mode":"eco","version":"1.10"}'

    Raises :class:`Failure` (usage).
    """
    source = _read(params)
    given = _object(source)
    fields = [source.strip()[1:-1]] if given else []
    keys = set(given)
    for key, encoded in [*map(_value, values), *map(_text, texts or ())]:
        if key in keys:
            raise Failure(Exit.USAGE, f"{key!a} is given twice")
        keys.add(key)
        fields.append(f"{json.dumps(key, ensure_ascii=False)}:{encoded}")
    return "{" + ",".join(fields) + "}"


def read_text(source: str) -> str:
    """The text of a file, of standard input for ``-``; at most ``PARAMS_MAX`` characters.

    Raises :class:`Failure` (usage).
    """
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            text = sys.stdin.read(PARAMS_MAX + 1)
        else:
            with Path(source).open(encoding="utf-8-sig") as file:
                text = file.read(PARAMS_MAX + 1)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(Exit.USAGE, f"{name} is not UTF-8 text") from None
    if len(text) > PARAMS_MAX:
        raise Failure(Exit.USAGE, f"{name} has more than {PARAMS_MAX} characters")
    return text.removeprefix("\ufeff")


def _read(params: str) -> str:
    if params == "-":
        return read_text("-")
    return read_text(params[1:]) if params.startswith("@") else params


def _object(text: str) -> dict[str, object]:
    try:
        given = exact_json.decode(text, unique=True)
    except exact_json.DuplicateKeyError as error:
        raise Failure(Exit.USAGE, f"--params: {error}") from None
    except (ValueError, RecursionError) as error:
        raise Failure(Exit.USAGE, f"--params is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Failure(Exit.USAGE, "--params is not a JSON object")
    return given


def _value(argument: str) -> tuple[str, str]:
    key, text = _split(argument, "KEY=VALUE")
    if key.endswith(":") and len(key) > 1:
        return key[:-1], _json(argument, text, key[:-1])
    return key, text if _is_json(text, key) else _encoded(text)


def _text(argument: str) -> tuple[str, str]:
    key, text = _split(argument, "KEY=TEXT")
    return key, _encoded(text)


def _split(argument: str, form: str) -> tuple[str, str]:
    key, equals, text = argument.partition("=")
    if not equals or not key:
        raise Failure(Exit.USAGE, f"{argument!a} is not {form}")
    return key, text


def _json(argument: str, text: str, key: str) -> str:
    if not _is_json(text, key):
        raise Failure(Exit.USAGE, f"{argument!a} is not KEY:=JSON; for text write {key}=TEXT")
    return text


def _is_json(text: str, key: str) -> bool:
    try:
        exact_json.decode(text, unique=True)
    except exact_json.DuplicateKeyError as error:
        raise Failure(Exit.USAGE, f"in {key!a}: {error}") from None
    except (ValueError, RecursionError):
        return False
    return True


def _encoded(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
