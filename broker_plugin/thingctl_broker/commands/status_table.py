"""What each status is called and how it is shown: one row a status, one column a reader.

Which status may follow which, and which are terminal, is in :mod:`thingctl_protocol.statuses`. A new status
has its row here; the console's style sheet has its colours.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from thingctl_protocol.statuses import TERMINAL, Status


class StatusRow(NamedTuple):
    """One status."""

    word: str
    """For people."""
    sgr: str
    """Its colour in a terminal: cyan under way, green well, red badly, yellow without a verdict."""
    exit_code: int
    """Of a command that waits for the end; 1: it is no end."""
    navixy: str
    """``status`` of ``get_command_status``."""
    graph: str
    """``status`` in Microsoft Graph; empty: more than the status decides."""
    severity: int
    """Ends from good to bad; 0: it is no end."""
    mark: str
    """Its sign in the console: the path of an SVG of 16 by 16."""
    is_failure: bool = False
    """Whether it counts against a rollout's ``maxFailures``."""
    is_verdict: bool = False
    """Whether the device decides it, in its own time."""


STATUS_TABLE: Final[dict[Status, StatusRow]] = {
    Status.SENT: StatusRow("Sent", "36", 1, "pending", "", 0, "M4 8h8"),
    Status.IN_PROGRESS: StatusRow("In progress", "36", 1, "pending", "executing", 0, "M8 4v4l3 2"),
    Status.SUCCEEDED: StatusRow(
        "Succeeded", "32", 0, "executed", "completed", 1, "M4.5 8.5l2.5 2.5 4.5-5", is_verdict=True
    ),
    Status.FAILED: StatusRow(
        "Failed",
        "31",
        10,
        "failed",
        "executionFailed",
        5,
        "M5 5l6 6M11 5l-6 6",
        is_failure=True,
        is_verdict=True,
    ),
    Status.REJECTED: StatusRow(
        "Rejected",
        "31",
        11,
        "rejected",
        "commandDropped",
        3,
        "M4.5 11.5l7-7",
        is_failure=True,
        is_verdict=True,
    ),
    Status.TIMED_OUT: StatusRow("Timed out", "33", 12, "timed_out", "", 4, "M5 4h6L5 12h6z", is_failure=True),
    Status.CANCELED: StatusRow("Canceled", "33", 13, "canceled", "canceled", 2, "M5 8h6"),
}

FAILURES: Final = frozenset(status for status, row in STATUS_TABLE.items() if row.is_failure)
"""The ends that count against a rollout's ``maxFailures``."""

VERDICTS: Final = frozenset(status for status, row in STATUS_TABLE.items() if row.is_verdict)
"""The ends whose duration says something about the device: the others are the operator's or the TTL's."""


def for_console() -> list[dict[str, object]]:
    """The table as the console reads it, in the order of :class:`Status`."""
    return [
        {
            "status": status.value,
            "word": row.word,
            "mark": row.mark,
            "severity": row.severity,
            "isTerminal": status in TERMINAL,
            "isFailure": row.is_failure,
        }
        for status, row in STATUS_TABLE.items()
    ]
