"""Standard output and standard error of a command, which a closed pipe or a full disk does not end."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final


class Terminal:
    """Prints lines. After the first failure it prints nothing more, and the command goes on."""

    def __init__(self) -> None:
        self._failure = ""

    def say(self, text: str) -> None:
        """Print a line to standard output."""
        try:
            print(text, flush=True)
        except OSError as error:
            self._give_up(error)

    def complain(self, text: str) -> None:
        """Print a line to standard error."""
        with contextlib.suppress(OSError):
            print(f"thingctl-agent: {text}", file=sys.stderr, flush=True)

    def end(self, code: int) -> int:
        """Write out what is left; returns the exit code, 1 if output was lost to a fault of the disk."""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            self._give_up(error)
        if self._failure:
            self.complain(f"standard output: {self._failure}")
        return code or (1 if self._failure else 0)

    def _give_up(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self._failure = error.strerror or str(error)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


TERMINAL: Final = Terminal()
