"""Times on the command line: ``30d`` from now or ago, or a date and time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from thingctl_broker.cli.exits import Exit, Failure

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def later(text: str, now: datetime) -> str:
    """Read ``30d`` as 30 days after ``now``, or a time; return RFC 3339. Raises :class:`Failure`.

    >>> later("90m", datetime(2030, 1, 1, tzinfo=UTC))
    '2030-01-01T01:30:00+00:00'
    """
    return _read(text, now, 1)


def earlier(text: str, now: datetime) -> str:
    """Read ``30d`` as 30 days before ``now``, or a time; return RFC 3339. Raises :class:`Failure`.

    >>> earlier("1h", datetime(2030, 1, 1, tzinfo=UTC))
    '2029-12-31T23:00:00+00:00'
    """
    return _read(text, now, -1)


def _read(text: str, now: datetime, sign: int) -> str:
    found = _DURATION.fullmatch(text)
    try:
        if found is not None:
            moment = now + sign * timedelta(**{_UNITS[found[2]]: int(found[1])})
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Failure(Exit.USAGE, f"{text!r} is no time: 30d, 12h, or 2030-01-31T12:00:00Z") from None
    return moment.isoformat()
