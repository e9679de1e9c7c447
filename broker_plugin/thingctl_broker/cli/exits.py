"""How the command ends: exit codes, and the one exception that stands for a failure."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

from thingctl_broker.commands.status_table import STATUS_TABLE
from thingctl_protocol.statuses import Status


class Exit(IntEnum):
    """Exit codes. Scripts may rely on them. Those of executions are in the table of statuses."""

    OK = 0
    """Done; where the command waited for the execution, it SUCCEEDED."""

    REFUSED = 1
    """The broker refused the request, or failed at it."""

    USAGE = 2
    """The command line is wrong."""

    UNREACHABLE = 3
    """No broker answers at the URL."""

    UNAUTHORIZED = 4
    """There is no token, or the broker does not accept it."""

    INTERRUPTED = 130
    """Ctrl-C."""

    PIPE_CLOSED = 141
    """The reader of the output has left (``| head -1``), as the shell says it of other programs."""


def of_status(status: str) -> int:
    """The exit code for the status of an execution that has ended."""
    return STATUS_TABLE[Status(status)].exit_code if status in Status.__members__ else Exit.REFUSED


def of_statuses(statuses: Mapping[str, int], refused: int) -> int:
    """The exit code for many: OK if all SUCCEEDED, else the lowest code of the others.

    ``statuses``: how many executions ended how. ``refused``: things that could not be sent the command.
    """
    codes = {of_status(status) for status, count in statuses.items() if count} - {Exit.OK}
    return min(codes, default=Exit.REFUSED if refused else Exit.OK)


class Failure(Exception):
    """The command cannot do what was asked. ``text`` is one sentence for people."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
