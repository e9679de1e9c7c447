"""Standard output and error that may be closed or full."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from thingctl_broker.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


class OutputFailure(Failure):
    """Standard output is full or closed. Without a text if its reader has left."""


class GuardedOutput:
    """Standard output; each fault of it is an :class:`OutputFailure`.

    A reader that has left (``| head -1``) ends the command silently, any other fault with a sentence.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``; return its length."""
        with _output_failures():
            return self._stream.write(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        with _output_failures():
            self._stream.flush()


class GuardedError:
    """Standard error; what cannot be written there is dropped, as there is no other place for it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``; return its length."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self.is_settled()

    def is_settled(self) -> bool:
        """Hand on what is buffered; return whether that was possible."""
        try:
            self._stream.flush()
        except OSError:
            return False
        return True


def guard() -> None:
    """Put the guards in front of this process's streams. A stream that is closed becomes a sink."""
    if not isinstance(sys.stdout, GuardedOutput):
        sys.stdout = GuardedOutput(_opened(sys.stdout))
    if not isinstance(sys.stderr, GuardedError):
        sys.stderr = GuardedError(_opened(sys.stderr))


def flush() -> None:
    """Write what standard output still holds; raises :class:`OutputFailure`."""
    sys.stdout.flush()


def discard_output() -> None:
    """Drop what standard output still holds: the interpreter would fail at it once more."""
    _discard(1)


def settle_errors() -> None:
    """Write what standard error still holds, or drop it."""
    if isinstance(sys.stderr, GuardedError) and not sys.stderr.is_settled():
        _discard(2)


def _discard(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _opened(stream: TextIO | None) -> TextIO:
    """The stream, or a sink; a character that its encoding does not have is written as its code."""
    if stream is None:
        stream = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    return stream


@contextmanager
def _output_failures() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise OutputFailure(Exit.PIPE_CLOSED, "") from None
    except OSError as error:
        raise OutputFailure(Exit.REFUSED, f"stdout: {error.strerror}") from None
