"""JSON that keeps every digit: ``1.10`` stays ``1.10``, and a long integer stays whole."""

from __future__ import annotations

import json
import re
from typing import Any, Final, Self

_SHORT: Final = 18
"""Digits of an integer that Python reads and writes unchanged, whatever its limits are."""

_NOT_PLAIN: Final = re.compile(r"[^ -~]")


class Number(float):
    """A JSON number with the text that it was written as.

    >>> Number("1.10"), Number("1.10") == 1.1
    (1.10, True)
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """``text``: a number in JSON; one beyond a float's range compares as infinity."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


class DuplicateKeyError(ValueError):
    """An object has two fields of one name. ``key``: that name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!a} is given twice")
        self.key = key


def decode(text: str | bytes, *, unique: bool = False) -> Any:
    """Read JSON; each number that Python could change is a :class:`Number`.

    ``unique``: refuse an object with two fields of one name (:class:`DuplicateKeyError`); without it
    the last one counts. Raises ``ValueError`` for text that is not JSON, ``RecursionError`` for text
    that is nested too deeply.
    """
    return json.loads(
        text,
        parse_float=Number,
        parse_int=_integer,
        parse_constant=_refuse_constant,
        object_pairs_hook=_unique if unique else None,
    )


def encode(value: Any, indent: int | None = None) -> str:
    """Write JSON that a terminal can show: each character in it is printable.

    ``indent``: blanks for each level, over several lines; None: one line. Raises ``RecursionError``
    for a value that is nested too deeply.
    """
    # Outside its strings JSON is ASCII: what is not printable stands in a string and can be escaped there.
    return _NOT_PLAIN.sub(_escape, _encode(value, indent, "\n" if indent else ""))


def _encode(value: Any, indent: int | None, line: str) -> str:
    if isinstance(value, Number):
        return value.text
    inner = line + " " * (indent or 0)
    if isinstance(value, dict):
        fields = [f"{_string(key)}: {_encode(field, indent, inner)}" for key, field in value.items()]
        return _block("{", fields, "}", inner, line)
    if isinstance(value, list | tuple):
        return _block("[", [_encode(item, indent, inner) for item in value], "]", inner, line)
    return json.dumps(value, ensure_ascii=False)


def _block(start: str, items: list[str], end: str, inner: str, line: str) -> str:
    if not items:
        return start + end
    return start + inner + ("," + (inner or " ")).join(items) + line + end


def _string(key: object) -> str:
    return json.dumps(str(key), ensure_ascii=False)


def _escape(found: re.Match[str]) -> str:
    c = found[0]
    return c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1]


def _integer(text: str) -> int | Number:
    return Number(text) if len(text) > _SHORT or text == "-0" else int(text)


def _unique(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(fields)
    if len(made) != len(fields):
        keys = [key for key, _ in fields]
        raise DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return made


def _refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is not JSON")
