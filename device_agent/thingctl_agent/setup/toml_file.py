"""Changes keys of a TOML text and leaves all else as its owner wrote it. Pure.

>>> print(change('url = "mqtt://a"  # old', {"url": "mqtt://b", "handlers": ["a.py"]}), end="")
url = "mqtt://b"  # old
handlers = ["a.py"]
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from thingctl_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Value = str | bool | list[str]


class Assignment(NamedTuple):
    """``key = value`` on the lines from ``start`` to before ``end``, in the table ``table``."""

    table: str
    key: str
    start: int
    end: int


def change(text: str, changes: Mapping[str, Value | None]) -> str:
    """Return the text with these keys (``key`` or ``table.key``) set, or removed for ``None``.

    Raises :class:`AgentError` when the text is no TOML, or a key stands in a form that cannot be
    changed in place (an inline table, a dotted key).
    """
    wanted = parse(text)
    for name, value in changes.items():
        table, _, key = name.rpartition(".")
        _set(wanted.setdefault(table, {}) if table else wanted, key, value)
        text = _change_one(text, table, key, value)
        if _without_empty(_parsed(text)) != _without_empty(wanted):
            line = "remove it" if value is None else f"write {key} = {quoted(value)}"
            raise AgentError(f"{name} cannot be changed in place; {line} yourself")
    return text


def parse(text: str) -> dict[str, Any]:
    """Parse a text; raises :class:`AgentError`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AgentError(f"it is not TOML: {error}") from None


def quoted(value: Value) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    # TOML's basic strings are JSON's, almost.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _change_one(text: str, table: str, key: str, value: Value | None) -> str:
    lines = text.splitlines(keepends=True)
    found = next((one for one in _assignments(lines) if (one.table, one.key) == (table, key)), None)
    new = "" if value is None else f"{key} = {quoted(value)}\n"
    if found is not None:
        if new:
            new = new.rstrip("\n") + _comment(lines[found.start : found.end]) + "\n"
        lines[found.start : found.end] = [new] if new else []
    elif new:
        _insert(lines, table, new)
    return "".join(lines)


def _insert(lines: list[str], table: str, new: str) -> None:
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    headers = [(at, name) for at, line in enumerate(lines) if (name := _header(line)) is not None]
    if table:
        at = next((at for at, name in headers if name == table), None)
        if at is None:
            lines += [*(["\n"] if lines else []), f"[{table}]\n", new]
        else:
            lines.insert(at + 1, new)
        return
    own = [one.end for one in _assignments(lines) if not one.table]
    first = headers[0][0] if headers else len(lines)
    lines.insert(max(own) if own else first, new)


def _assignments(lines: list[str]) -> Iterator[Assignment]:
    table, at = "", 0
    while at < len(lines):
        name = _header(lines[at])
        end = at + 1
        if name is not None:
            table = name
        elif lines[at].strip() and not lines[at].lstrip().startswith("#"):
            while end < len(lines) and _parsed("".join(lines[at:end])) is None:
                end += 1
            keys = list(_parsed("".join(lines[at:end])) or {})
            if len(keys) == 1:
                yield Assignment(table, keys[0], at, end)
        at = end


def _header(line: str) -> str | None:
    """The table that a line opens, with dots; ``None`` when it opens none."""
    found = _parsed(line) if line.lstrip().startswith("[") else None
    if found is None:
        return None
    names = []
    inner: Any = found
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        names.append(name)
    return ".".join(names)


def _comment(lines: list[str]) -> str:
    """The comment at the end of an assignment of one line, with the spaces before it."""
    if len(lines) != 1:
        return ""
    line = lines[0].rstrip("\r\n")
    whole = _parsed(line)
    for at in (index for index, char in enumerate(line) if char == "#"):
        if _parsed(line[:at]) == whole:
            return line[len(line[:at].rstrip()) :]
    return ""


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _set(table: Any, key: str, value: Value | None) -> None:
    if not isinstance(table, dict):
        return
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _without_empty(table: dict[str, Any] | None) -> dict[str, Any] | None:
    """The empty table ``tls`` is none."""
    return None if table is None else {key: value for key, value in table.items() if key != "tls" or value}
