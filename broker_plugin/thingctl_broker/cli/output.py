"""What people read: tables, times, statuses.

Text that came from elsewhere (a device above all) passes through :func:`clean` before it
reaches a terminal: a control character in it could move the cursor, rename the window
or hide what was really said.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TextIO
from unicodedata import combining, east_asian_width

from thingctl_broker.cli import exact_json
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.commands.status_table import STATUS_TABLE
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thingctl_broker.cli.client import Json

_COLOURS: Final = {status.value: row.sgr for status, row in STATUS_TABLE.items()}


def clean(value: object) -> str:
    r"""``value`` as text with every character that is not printable escaped.

    >>> clean("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def compact_json(value: Any) -> str:
    """``value`` as JSON in one line, fit for a terminal."""
    return _json(value, None)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON for programs."""
    print(_json(value, 2))


def _json(value: Any, indent: int | None) -> str:
    try:
        return exact_json.encode(value, indent)
    except RecursionError:
        raise Failure(Exit.REFUSED, "the answer is nested too deeply to print") from None


def local_time(text: object) -> str:
    """Return an RFC 3339 time in the local time zone, to the second; another text unchanged."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return clean(text)


def precise_time(text: object) -> str:
    """An RFC 3339 time in the local time zone, with milliseconds and the offset from UTC."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().isoformat(" ", "milliseconds")
    except (ValueError, OverflowError):
        return clean(text)


def duration(seconds: object) -> str:
    """Seconds as people say them.

    >>> duration(0.0123), duration(75), duration(7325)
    ('12 ms', '1 min 15 s', '2 h 2 min')
    """
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes as people say them.

    >>> size(412), size(4096), size(1_300_000)
    ('412 B', '4 KiB', '1.24 MiB')
    """
    if count < 1024:
        return f"{count} B"
    power = min(3, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.3g} {('KiB', 'MiB', 'GiB')[power - 1]}"


def coloured(status: object, stream: TextIO | None = None) -> str:
    """A status, in its colour when the stream is a terminal that wants colours."""
    text = clean(status)
    code = _COLOURS.get(text)
    return f"\x1b[{code}m{text}\x1b[0m" if code and _wants_colour(stream or sys.stdout) else text


def _wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns."""
    lines = [headers, *rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


_SGR: Final = re.compile(r"\x1b\[\d+m")


def _width(text: str) -> int:
    """Columns that ``text`` takes on a terminal; colours take none."""
    if "\x1b" in text:
        text = _SGR.sub("", text)
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, columns: int) -> str:
    """The beginning of ``text`` that takes at most ``columns`` on a terminal."""
    while _width(text) > columns:
        text = text[:-1]
    return text


def summary(execution: Json) -> str:
    """An execution in a line."""
    status = execution["status"]
    line = f"{clean(execution.get('thingId'))} {clean(execution.get('action'))}: {coloured(status)}"
    if "durationSeconds" in execution:
        line += f" after {duration(execution['durationSeconds'])}"
    elif execution.get("delivery") == "QUEUED":
        line += " (waiting for the thing to connect)"
    return line


def outcomes_line(outcomes: Iterable[Json]) -> str:
    """The outcomes of a command in a line. Things are named except where all went well.

    A result is shown where another outcome differs by it alone.

    >>> outcomes_line([
    ...     {"status": "SUCCEEDED", "count": 497, "examples": ["a", "b", "c"]},
    ...     {"status": "FAILED", "reasonCode": "VALVE", "count": 2, "examples": ["x", "y"]},
    ...     {"status": "TIMED_OUT", "count": 9, "examples": ["d", "e", "f"], "more": True},
    ... ])
    '497 SUCCEEDED · 2 FAILED VALVE (x, y) · 9 TIMED_OUT (d, e, f, …)'
    """
    found = list(outcomes)
    kinds = [(one.get("status"), one.get("reasonCode")) for one in found]
    parts = []
    for one, kind in zip(found, kinds, strict=True):
        words = [clean(one.get("count")), coloured(kind[0])]
        if kind[1]:
            words.append(clean(kind[1]))
        if "result" in one and kinds.count(kind) > 1:
            words.append(compact_json(one["result"]))
        names = [clean(name) for name in one.get("examples") or ()]
        if kind[0] != "SUCCEEDED" and names:
            words.append(f"({', '.join([*names, '…'] if one.get('more') else names)})")
        parts.append(" ".join(words))
    return " · ".join(parts)


def print_outcome(execution: Json, more: Sequence[tuple[str, str]] = ()) -> None:
    """Print where an execution stands, its result, and the fields in ``more``."""
    print(summary(execution))
    print_fields([*_outcome(execution), *more, ("execution", clean(execution["executionId"]))])


def print_execution(execution: Json, more: Sequence[tuple[str, str]] = ()) -> None:
    """Print all there is about an execution, and the fields in ``more``."""
    print(summary(execution))
    fields = [("execution", clean(execution["executionId"])), ("command", clean(execution.get("commandId")))]
    fields.append(("params", compact_json(execution.get("params"))))
    fields += [*_outcome(execution), *more]
    fields.append(
        ("delivery", f"{clean(execution.get('delivery'))}, attempts: {clean(execution.get('attempts'))}")
    )
    fields.append(
        ("expires", f"{precise_time(execution.get('expiresAt'))} (ttl {clean(execution.get('ttl'))} s)")
    )
    if execution.get("conflicts"):
        fields.append(("conflicts", f"{clean(execution['conflicts'])} responses contradicted the verdict"))
    fields += [
        (_in_words(name), compact_json(value)) for name, value in execution.items() if name not in _SHOWN
    ]
    print_fields(fields)
    for event in execution.get("events") or ():
        print(f"  {precise_time(event.get('at'))}  {clean(event.get('event'))}")


_SHOWN: Final = frozenset(
    {
        "executionId",
        "commandId",
        "thingId",
        "action",
        "params",
        "ttl",
        "status",
        "delivery",
        "attempts",
        "createdAt",
        "expiresAt",
        "events",
        "result",
        "statusReason",
        "progress",
        "retrySafe",
        "late",
        "conflicts",
        "requestedBy",
        "publishedAt",
        "deliveredAt",
        "startedAt",
        "cancelRequestedAt",
        "endedAt",
        "durationSeconds",
    }
)
"""Fields with a line of their own, or a place among the events. Others follow as they are."""


def _in_words(name: str) -> str:
    """``backOffice`` as ``back office``."""
    return clean("".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name))


def _outcome(execution: Json) -> list[tuple[str, str]]:
    fields = []
    if "progress" in execution and execution.get("status") not in TERMINAL:
        fields.append(("progress", progress(execution["progress"])))
    if "result" in execution:
        fields.append(("result", compact_json(execution["result"])))
    if "statusReason" in execution:
        fields.append(("reason", _reason(execution["statusReason"])))
    if "retrySafe" in execution:
        safe = execution["retrySafe"] is True
        fields.append(("retry", "safe: it never left the broker" if safe else "it may run twice"))
    late = execution.get("late")
    if isinstance(late, dict):
        text = f"{clean(late.get('status'))}, {duration(late.get('delaySeconds'))} too late"
        if "result" in late:
            text += f": {compact_json(late['result'])}"
        fields.append(("late", text))
    return fields


def progress(value: Any) -> str:
    """Return a progress report as one line: percent and message."""
    if not isinstance(value, dict):
        return clean(value)
    percent = value.get("percent")
    parts = [f"{percent:g} %" if isinstance(percent, int | float) else "", clean(value.get("message") or "")]
    return " ".join(part for part in parts if part)


def _reason(value: Any) -> str:
    if not isinstance(value, dict):
        return clean(value)
    parts = [value.get("reasonCode"), value.get("reasonDescription")]
    return ": ".join(clean(part) for part in parts if part)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, indented and aligned."""
    for name, value in fields:
        print(f"  {name:<9} {value}")
