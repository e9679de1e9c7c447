"""Query strings: parsed strictly, so that a mistyped filter never lists everything."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl

from thingctl_broker.commands.table import Query
from thingctl_broker.http.auth import visible
from thingctl_broker.http.problems import INVALID_PARAMETER, Problem
from thingctl_broker.rollouts.rollout import State
from thingctl_protocol.identifiers import is_action_name, is_id, is_thing_name, is_uuid7
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.security.tokens import Token

W = TypeVar("W", bound=StrEnum)

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 500
"""Items of one page."""

WAIT_MAX: Final = 60.0
"""Seconds that a request may ask to wait for an execution to end."""

HELD_MAX: Final = 55.0
"""Seconds that an answer is held back at most: proxies by default give up after 60."""

SORTS: Final = ("-createdAt", "createdAt")
"""Newest first, oldest first."""

_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Parameters:
    """The parameters of one request, each of them known to the endpoint."""

    def __init__(self, query: bytes, known: frozenset[str]) -> None:
        """Parse ``query``; raises :class:`Problem` (400) for a parameter that is not ``known``."""
        self._values: dict[str, list[str]] = {}
        if not query:
            return
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise Problem(INVALID_PARAMETER, "the query is not percent-encoded UTF-8") from None
        for name, value in pairs:
            if name not in known:
                raise Problem(
                    INVALID_PARAMETER,
                    f"there is no parameter {ascii(name)[:80]} here"
                    + (f"; there are {', '.join(sorted(known))}" if known else ""),
                    parameter=name,
                )
            self._values.setdefault(name, []).append(value)

    def text(self, name: str, check: Callable[[str], bool], what: str) -> str | None:
        """The one value of a parameter, None without it.

        Raises :class:`Problem` (400) when it is given twice or ``check`` says no: it is not ``what``.
        """
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise Problem(INVALID_PARAMETER, f"{name} may be given once", parameter=name)
        if not check(values[0]):
            raise Problem(INVALID_PARAMETER, f"{name} must be {what}", parameter=name)
        return values[0]

    def texts(self, name: str, check: Callable[[str], bool], what: str) -> tuple[str, ...]:
        """Every value of a parameter that may be repeated; raises :class:`Problem` (400)."""
        values = self._values.get(name, ())
        if not all(map(check, values)):
            raise Problem(INVALID_PARAMETER, f"{name} must be {what}", parameter=name)
        return tuple(values)

    def wait(self) -> float | None:
        """``wait``: seconds above 0; up to ``WAIT_MAX`` may be asked for, and ``HELD_MAX`` are given."""
        text = self.text("wait", _is_wait, f"seconds above 0, at most {WAIT_MAX:g}")
        return None if text is None else min(float(text), HELD_MAX)

    def limit(self) -> int:
        """``limit``: items of one page, 1 to ``LIMIT_MAX``."""
        text = self.text("limit", _is_limit, f"a whole number from 1 to {LIMIT_MAX}")
        return LIMIT_DEFAULT if text is None else int(text)

    def cursor(self, check: Callable[[str], bool] = is_id) -> str | None:
        """``cursor``: the ``nextCursor`` of the page before; ``check``: whether it can be one."""
        return self.text("cursor", check, "the nextCursor of an earlier answer")

    def time(self, name: str) -> float | None:
        """A moment, RFC 3339 with its offset from UTC, as Unix seconds; before 1970: 0."""
        text = self.text(name, _is_time, "a time as 2025-05-28T00:00:00Z")
        return None if text is None else max(0.0, _moment(text).timestamp())

    def oldest_first(self) -> bool:
        """``sort``: ``createdAt``, or ``-createdAt`` as without it."""
        return self.text("sort", SORTS.__contains__, f"one of {', '.join(SORTS)}") == "createdAt"

    def statuses(self) -> frozenset[Status] | None:
        """``status``: repeated, or several with commas."""
        return self._among("status", Status)

    def states(self) -> frozenset[State] | None:
        """``state`` of commands to many things: repeated, or several with commas."""
        return self._among("state", State)

    def _among(self, name: str, words: type[W]) -> frozenset[W] | None:
        values = self._values.get(name)
        if values is None:
            return None
        try:
            return frozenset(words(word) for value in values for word in value.split(","))
        except ValueError:
            raise Problem(
                INVALID_PARAMETER, f"{name} must be of {', '.join(words)}", parameter=name
            ) from None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that was not escaped


def _is_time(text: str) -> bool:
    try:
        moment = _moment(text)
        moment.timestamp()  # some calendars' ends are beyond it
    except (ValueError, OverflowError):
        return False
    return len(text) <= 40 and moment.tzinfo is not None


def _is_wait(text: str) -> bool:
    return len(text) <= 40 and _NUMBER.fullmatch(text) is not None and 0 < float(text) <= WAIT_MAX


def is_boolean(text: str) -> bool:
    """Whether ``text`` is a boolean."""
    return text in {"true", "false"}


def _is_limit(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX


def executions_asked(asked: Parameters, token: Token) -> Query:
    """What ``thingId``, ``action``, ``status`` and ``commandId`` name of what the token may see."""
    return Query(
        thing=asked.text("thingId", is_thing_name, "the name of a thing"),
        action=asked.text("action", is_action_name, "the name of an action"),
        statuses=asked.statuses(),
        command_id=asked.text("commandId", is_uuid7, "the id of a command"),
        visible=visible(token),
    )
