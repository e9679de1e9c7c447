"""What handlers report, on its way from their threads to the session.

Floods cost nothing: of progress and of values to keep, the latest of each execution is enough.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

from thingctl_agent.core.outcome import JOURNAL_UNAVAILABLE
from thingctl_agent.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_agent.core.clock import Wall
    from thingctl_agent.core.effects import Effect
    from thingctl_agent.core.outcome import CallOutcome
    from thingctl_agent.core.session import DeviceSession

WRITTEN_WITHIN: Final = 30.0
"""Seconds that a handler waits for its record; a flash card may take some of them."""


class Latest:
    """The latest report of each execution. However many there are, the loop gets one call.

    ``deliver(execution_id, *report)`` is called by the loop, through ``post``.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None], deliver: Callable[..., None]) -> None:
        self._post = post
        self._deliver = deliver
        self._lock = threading.Lock()
        self._reports: dict[str, tuple[Any, ...]] = {}

    def put(self, execution_id: str, *report: Any) -> None:
        """Replace the report of an execution; from any thread."""
        with self._lock:
            first = not self._reports
            self._reports[execution_id] = report
        if first:
            self._post(self._deliver_all)

    def _deliver_all(self) -> None:
        with self._lock:
            reports, self._reports = self._reports, {}
        for execution_id, report in reports.items():
            self._deliver(execution_id, *report)


class HandlerReports:
    """Turns reports into calls of the session, made on the loop's thread."""

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        session: DeviceSession,
        do: Callable[[Iterable[Effect]], set[str]],
        now: Callable[[], float],
        wall: Wall,
    ) -> None:
        """``post`` has a call made by the loop. ``do`` returns the executions it could not write."""
        self._post = post
        self._session = session
        self._do = do
        self._now = now
        self._wall = wall
        self._progress = Latest(post, self._on_progress)
        self._saved = Latest(post, self._on_saved)

    def progress(self, execution_id: str, percent: float | None, message: str | None) -> None:
        """A handler says how far it has come."""
        self._progress.put(execution_id, percent, message)

    def save(self, execution_id: str, value: bytes) -> None:
        """A handler wants a value kept."""
        self._saved.put(execution_id, value)

    def rebooting(self, execution_id: str, result: Any) -> None:
        """A handler is about to restart the device; returns when that is on the disk.

        Raises :class:`CommandFailed` when it cannot be written.
        """
        import queue  # noqa: PLC0415 - few agents restart their device

        answer: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def write() -> None:
            written = False
            try:
                effects = self._session.rebooting(execution_id, result, self._now())
                written = bool(effects) and not self._do(effects)
            finally:
                answer.put(written)

        self._post(write)
        with contextlib.suppress(queue.Empty):
            if answer.get(timeout=WRITTEN_WITHIN):
                return
        raise CommandFailed("the device cannot write its journal", code=JOURNAL_UNAVAILABLE)

    def finished(self, execution_id: str, outcome: CallOutcome) -> None:
        """A handler has ended."""
        self._post(lambda: self._on_finished(execution_id, outcome))

    # -- on the loop's thread

    def _on_progress(self, execution_id: str, percent: float | None, message: str | None) -> None:
        self._do(self._session.progress(execution_id, percent, message, self._now()))

    def _on_saved(self, execution_id: str, value: bytes) -> None:
        self._do(self._session.keep(execution_id, value))

    def _on_finished(self, execution_id: str, outcome: CallOutcome) -> None:
        self._do(self._session.finished(execution_id, outcome, self._now(), self._wall))
