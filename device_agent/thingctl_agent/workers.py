"""Where handlers run: a thread for each running ``def``, one event loop for ``async def``.

Neither exists before it is needed: an idle agent has one thread. All threads are
daemons, as a function cannot be killed and must not keep the agent from ending.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_agent import runner
from thingctl_agent.context import Context

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from thingctl_agent.context import Reports
    from thingctl_agent.effects import Start
    from thingctl_agent.outcome import Outcome
    from thingctl_agent.registry import Action

    Finished = Callable[[str, Outcome], None]
    Failed = Callable[[str, BaseException], None]


LINGER: Final = 5.0
"""Seconds that a thread waits for another call: to make one for each costs as much as a short call."""


class Threads:
    """Daemon threads, as many as there are calls; one that has nothing to do ends after a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Callable[[], None]]] = []

    def run(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, at once."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is not None:
            inbox.put(call)
        else:
            threading.Thread(target=self._work, args=(call,), name="handler", daemon=True).start()

    def _work(self, call: Callable[[], None]) -> None:
        inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        while True:
            call()
            with self._lock:
                self._idle.append(inbox)
            try:
                call = inbox.get(timeout=LINGER)
            except queue.Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return
                call = inbox.get()  # it was put there just now


class Workers:
    """Calls handlers. ``finished`` and ``failed`` are called from their threads.

    ``finished(execution_id, outcome)`` comes exactly once for each start;
    ``failed(execution_id, error)`` before it for an exception the operator is not shown.
    """

    def __init__(self, reports: Reports, finished: Finished, failed: Failed) -> None:
        self._reports = reports
        self._finished = finished
        self._failed = failed
        self._contexts: dict[str, Context] = {}
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = Threads()

    def __len__(self) -> int:
        """How many handlers run."""
        return len(self._contexts)

    def start(self, start: Start, action: Action) -> None:
        """Call the handler."""
        context = Context(
            start.execution_id,
            start.action,
            self._reports,
            deadline=None if start.timeout is None else time.monotonic() + start.timeout,
            attempt=start.attempt,
            saved=None if start.saved is None else msgspec.json.decode(start.saved),
        )
        self._contexts[start.execution_id] = context
        if action.is_async:
            loop = self._loop or self._start_loop()
            loop.call_soon_threadsafe(self._spawn, loop, action, start.params, context)
        else:
            self._pool.run(lambda: self._call(action, start.params, context))

    def interrupt(self, execution_id: str) -> None:
        """Ask a handler to stop. A task is cancelled; a function has to look at its context."""
        context = self._contexts.get(execution_id)
        if context is not None:
            context.stop()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel, execution_id)

    def _call(self, action: Action, params: bytes, context: Context) -> None:
        outcome = runner.run(action, params, context, lambda error: self._failed(context.execution_id, error))
        self._end(context, outcome)

    def _end(self, context: Context, outcome: Outcome) -> None:
        self._contexts.pop(context.execution_id, None)
        self._finished(context.execution_id, outcome)

    # -- on the event loop

    def _start_loop(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415 - 5 MB that agents without async handlers never need

        loop = self._loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="async handlers", daemon=True).start()
        return loop

    def _spawn(
        self, loop: asyncio.AbstractEventLoop, action: Action, params: bytes, context: Context
    ) -> None:
        def on_error(error: BaseException) -> None:
            self._failed(context.execution_id, error)

        def done(task: asyncio.Task[Outcome]) -> None:
            del self._tasks[context.execution_id]
            # A task that is cancelled before its first step ends without running any of it.
            self._end(context, runner.never_begun() if task.cancelled() else task.result())

        task = loop.create_task(runner.run_async(action, params, context, on_error))
        self._tasks[context.execution_id] = task
        task.add_done_callback(done)
        if context.canceled:  # it was interrupted before the loop came to it
            task.cancel()

    def _cancel(self, execution_id: str) -> None:
        task = self._tasks.get(execution_id)
        if task is not None:
            task.cancel()
