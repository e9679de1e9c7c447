"""What happens to an execution, shown on standard error while a command waits for its end."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

from thingctl_broker.cli import output
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_broker.cli.client import Json

_BAR: Final = 24
"""Columns of a progress bar."""

_STAGES: Final = {
    "published": "published",
    "delivered": "delivered",
    "started": "at work",
    "cancelRequested": "the thing is asked to stop",
}
"""Texts of the events that happen before the end."""


class Display:
    """Prints each stage of one execution once; progress as a bar on a terminal, as lines elsewhere."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._draws = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown: set[str] = set()
        self._delivery: object = None
        self._progress: object = None
        self._bar = ""

    def show_changes(self, execution: Json) -> None:
        """Print what is new since the last time."""
        for event, line in self._stages(execution):
            if event not in self._shown:
                self._shown.add(event)
                self.print_line(line)
        delivery = execution.get("delivery")
        if delivery != self._delivery and delivery == "QUEUED":
            self.print_line(
                f"waiting for the thing to connect, until {output.local_time(execution.get('expiresAt'))}"
            )
        self._delivery = delivery
        self._show_progress(execution)

    def print_line(self, line: str) -> None:
        """Print a line."""
        self._draw("")
        print(line, file=self._stream, flush=True)
        self._draw(self._bar)

    def close(self) -> None:
        """Take the bar away."""
        self._draw("")
        self._bar = ""

    @staticmethod
    def _stages(execution: Json) -> Iterator[tuple[str, str]]:
        at_once = execution.get("startedAt") == execution.get("endedAt")  # it answered with the verdict
        for event in execution.get("events") or ():
            name = event.get("event")
            if name in _STAGES and not (name == "started" and at_once):
                yield name, f"{output.precise_time(event.get('at'))}  {_STAGES[name]}"

    def _show_progress(self, execution: Json) -> None:
        progress = execution.get("progress")
        if progress is None or progress == self._progress or execution["status"] in TERMINAL:
            return
        self._progress = progress
        if self._draws:
            self._bar = bar(progress, shutil.get_terminal_size().columns - 1)
            self._draw(self._bar)
        else:
            self.print_line(f"progress: {output.progress(progress)}")

    def _draw(self, text: str) -> None:
        if self._draws and (self._bar or text):
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)


def bar(progress: Any, columns: int) -> str:
    """A progress report as a line of at most ``columns`` characters.

    >>> bar({"percent": 50, "message": "half"}, 80)
    '[############------------] 50 % half'
    """
    percent = progress.get("percent") if isinstance(progress, dict) else None
    text = output.progress(progress)
    if isinstance(percent, int | float) and 0 <= percent <= 100:
        done = round(_BAR * percent / 100)
        text = f"[{'#' * done}{'-' * (_BAR - done)}] {text}"
    return output.cut(text, columns)
