"""Changes single settings in the text of a TOML file and leaves the rest as it is: comments, order, lines."""

from __future__ import annotations

import json
import re
import tomllib
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLE: Final = re.compile(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]\s*(#.*)?")
_ANY_TABLE: Final = re.compile(r"\s*\[")
_VALUE: Final = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s#"'\[{]+)"""


class SettingKey(NamedTuple):
    """A setting's place. ``table``: empty for the top of the file."""

    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.table}.{self.name}" if self.table else self.name


class CannotChange(Exception):
    """The file's form does not let a setting be changed; the text says what to do."""


def set_values(text: str, values: Mapping[SettingKey, str]) -> str:
    r"""Return ``text`` with these string settings; raises :class:`CannotChange`, or ValueError for no TOML.

    >>> set_values("[http]  # operators\nburst = 9\n", {SettingKey("http", "bind"): "[::1]:80"})
    '[http]  # operators\nbind = "[::1]:80"\nburst = 9\n'
    """
    wanted = deepcopy(tomllib.loads(text))
    lines = text.removesuffix("\n").split("\n") if text else []  # a value may hold other separators
    for key, value in values.items():
        lines = _with_value(lines, key, f"{key.name} = {_quoted(value)}")
        _put(wanted, key, value)
    changed = "\n".join(lines) + "\n"
    if _read(changed) != wanted:
        told = "; ".join(f"{key} = {_quoted(value)}" for key, value in values.items())
        raise CannotChange(f"the file has a form that is not changed here; write yourself: {told}")
    return changed


def value_of(settings: Mapping[str, Any], key: SettingKey) -> object:
    """Return what parsed settings say at ``key``; None when they say nothing."""
    table = settings.get(key.table, {}) if key.table else settings
    return table.get(key.name) if isinstance(table, dict) else None


def _with_value(lines: list[str], key: SettingKey, line: str) -> list[str]:
    start, end = _section(lines, key.table)
    if start is None:
        gap = [""] if lines and lines[-1].strip() else []
        return [*lines, *gap, f"[{key.table}]", line]
    pattern = re.compile(rf"(\s*){re.escape(key.name)}\s*=\s*{_VALUE}(\s*(?:#.*)?)")
    for i in range(start, end):
        if found := pattern.fullmatch(lines[i]):
            return [*lines[:i], found[1] + line + found[2], *lines[i + 1 :]]
    if not key.table:  # behind what stands at the top
        while end > start and not lines[end - 1].strip():
            end -= 1
        return [*lines[:end], line, *lines[end:]]
    return [*lines[:start], line, *lines[start:]]


def _section(lines: list[str], table: str) -> tuple[int | None, int]:
    """The lines of a table: the first behind its header, and the one behind its last."""
    heads = [i for i, line in enumerate(lines) if _ANY_TABLE.match(line)]
    if not table:
        return 0, heads[0] if heads else len(lines)
    for i in heads:
        found = _TABLE.fullmatch(lines[i])
        if found is not None and found[1] == table:
            return i + 1, next((head for head in heads if head > i), len(lines))
    return None, len(lines)


def _put(settings: dict[str, Any], key: SettingKey, value: str) -> None:
    table = settings.setdefault(key.table, {}) if key.table else settings
    table[key.name] = value


def _read(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _quoted(text: str) -> str:
    # TOML's basic strings are JSON's, but for this character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
