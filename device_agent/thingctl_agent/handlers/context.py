"""What a handler may ask for by a type hint: ``ctx: Context``.

Its methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from thingctl_agent.errors import Canceled, CommandFailed
from thingctl_agent.handlers import json_values
from thingctl_protocol.limits import PROGRESS_MESSAGE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingctl_agent.handlers.programs import Program

SAVED_MAX: Final = 64 * 1024
"""Bytes of JSON that ``ctx.save`` keeps of one execution."""


class Reports(Protocol):
    """Where a context says what happens. Its methods may be called from any thread."""

    def progress(self, execution_id: str, percent: float | None, message: str | None) -> None:
        """The handler has come this far."""

    def save(self, execution_id: str, value: bytes) -> None:
        """The handler wants to find this encoded value again after a restart."""

    def rebooting(self, execution_id: str, result: Any) -> None:
        """Record that the handler is about to restart the device; return when it is on the disk.

        Raises :class:`CommandFailed` when it cannot be recorded.
        """


class Completed(NamedTuple):
    """How a program ended. ``output``: what it wrote to stdout and stderr, as it came."""

    returncode: int
    output: str


class Context:
    """One execution, seen from inside its handler.

    execution_id, action
        Which one this is.
    deadline
        ``time.monotonic()`` at which the call times out; ``None``: never.
    attempt
        1, and more when a restart interrupted an earlier one (``on_restart``).
    saved
        What an earlier attempt last gave to :meth:`save`; else ``None``.
    """

    def __init__(
        self,
        execution_id: str,
        action: str,
        reports: Reports,
        *,
        deadline: float | None = None,
        attempt: int = 1,
        saved: Any = None,
        reboots: bool = False,
    ) -> None:
        self.execution_id = execution_id
        self.action = action
        self.deadline = deadline
        self.attempt = attempt
        self.saved = saved
        self._reports = reports
        self._reboots = reboots
        self._spared = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._programs: set[Program] = set()

    @property
    def canceled(self) -> bool:
        """Whether the execution is to stop: canceled, timed out, or the agent is stopping."""
        return self._stop.is_set()

    @property
    def remaining(self) -> float | None:
        """Seconds until the call times out; ``None``: it never does."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise :class:`~thingctl_agent.errors.Canceled` when the execution is to stop."""
        if self._stop.is_set():
            raise Canceled

    def sleep(self, seconds: float) -> None:
        """Wait, and raise :class:`~thingctl_agent.errors.Canceled` as soon as it is to stop."""
        if self._stop.wait(seconds):
            raise Canceled

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Tell the operator how far it has come. ``percent``: 0 to 100.

        Call it as often as you like: the latest is published, at most twice a second.
        ``message`` is cut to ``PROGRESS_MESSAGE_MAX`` characters. Raises :class:`TypeError` for
        another type than number and text, :class:`ValueError` for a percentage out of bounds.
        """
        if percent is not None:
            percent = _percentage(percent)
        if message is not None:
            if not isinstance(message, str):
                raise TypeError(f"the message of progress is a str, not {type(message).__name__}")
            message = str(message)[:PROGRESS_MESSAGE_MAX]
        self._reports.progress(self.execution_id, percent, message)

    def save(self, value: Any) -> None:
        """Keep a JSON value for the next attempt, should a restart interrupt this one.

        The latest value is kept; each takes the place of the one before. Raises
        :class:`TypeError` for what JSON cannot express, naming its type and path, and
        :class:`ValueError` for a value of more than ``SAVED_MAX`` bytes of JSON.
        """
        encoded = json_values.encode(value)
        if len(encoded) > SAVED_MAX:
            raise ValueError(f"ctx.save takes {SAVED_MAX} bytes of JSON, not {len(encoded)}")
        self._reports.save(self.execution_id, encoded)

    def rebooting(self, result: Any = None) -> None:
        """Record that the device is about to restart. Call it right before what restarts it.

        Returns when the record is on the disk. From then on the execution is judged by the
        reboot alone: SUCCEEDED with ``result`` if the boot id has changed, else FAILED
        ``NOT_REBOOTED``; neither a cancel nor the agent's end interrupts the handler.
        Raises :class:`RuntimeError` in an action without ``reboots=True``,
        :class:`Canceled` when the execution is to stop, and :class:`CommandFailed`
        (``JOURNAL_UNAVAILABLE``) when it cannot be recorded: then do not restart.
        """
        if not self._reboots:
            raise RuntimeError("ctx.rebooting() is for actions with reboots=True")
        self.check()
        self._reports.rebooting(self.execution_id, result)
        self._spared = True

    @property
    def log(self) -> Any:
        """A structlog logger that names the execution in each line."""
        import structlog  # noqa: PLC0415 - a handler that never logs need not load it

        return structlog.get_logger().bind(executionId=self.execution_id, action=self.action)

    def run(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Completed:
        """Run a program and wait for its end; it and its process group are killed when it is to stop.

        ``command``: the program and its arguments, no shell in between. ``check``: raise
        :class:`CommandFailed` unless it exits with 0. ``on_line``: called with each line of its
        output as it comes; what it raises stops the program. The first 16 and the last 48 KiB of
        the output are kept. A process that it leaves in the background is not waited for, even if
        that holds the output open. Raises :class:`Canceled` when the execution was stopped.
        """
        if isinstance(command, str) or not command:
            raise TypeError("the command is a list: the program and its arguments")
        from thingctl_agent.handlers.programs import Program  # noqa: PLC0415 - 1 MB that many agents never need

        self.check()
        try:
            program = Program(command, stdin, env, cwd)
        except OSError as error:
            raise CommandFailed(f"{command[0]} cannot be run: {error.strerror}", code="CANNOT_RUN") from error
        with self._lock:
            self._programs.add(program)
        try:
            if self._stop.is_set():
                program.stop()
            returncode, output = program.talk(on_line)
        finally:
            with self._lock:
                self._programs.discard(program)
            program.close()
        self.check()
        if check and returncode != 0:
            raise CommandFailed(
                f"{command[0]} ended with {returncode}",
                code="EXIT_STATUS",
                returncode=returncode,
                output=output[-2000:],
            )
        return Completed(returncode, output)

    def stop(self) -> None:
        """Set ``canceled`` and end every program that :meth:`run` waits for."""
        self._stop.set()
        with self._lock:
            for program in self._programs:
                program.stop()

    def kill_programs(self) -> None:
        """Kill every program that :meth:`run` waits for, without waiting: the agent ends.

        What restarts the device after :meth:`rebooting` is spared.
        """
        if self._spared:
            return
        with self._lock:
            for program in self._programs:
                program.kill()


def _percentage(value: Any) -> float:
    """A number from 0 to 100 as JSON takes it; subclasses of float and int become plain."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"percent is a number, not {type(value).__name__}")
    if not 0 <= value <= 100:
        raise ValueError(f"percent is 0 to 100, not {value}")
    return int(value) if isinstance(value, int) else float(value)
