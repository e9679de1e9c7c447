"""Where handlers run: a thread for each running ``def``, one event loop for ``async def``.

Neither exists before it is needed: an idle agent has one thread. All threads are
daemons, as a function cannot be killed and must not keep the agent from ending.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_agent.core import outcome
from thingctl_agent.handlers.context import Context
from thingctl_agent.runtime import runner

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from thingctl_agent.core.effects import Start
    from thingctl_agent.core.outcome import CallOutcome
    from thingctl_agent.handlers.context import Reports
    from thingctl_agent.handlers.registry import Action

    Finished = Callable[[str, CallOutcome], None]
    Failed = Callable[[str, BaseException], None]


LINGER: Final = 5.0
"""Seconds that a thread waits for another call: to make one for each costs as much as a short call."""


class Threads:
    """Daemon threads, as many as there are calls; one that has nothing to do ends after a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Callable[[], None]]] = []

    def run(self, call: Callable[[], None]) -> None:
        """Have ``call`` called without delay."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is not None:
            inbox.put(call)
        else:
            threading.Thread(target=self._work, args=(call,), name="handler", daemon=True).start()

    def _work(self, call: Callable[[], None]) -> None:
        inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        while True:
            with contextlib.suppress(BaseException):  # it has told; the thread is for others, too
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


class HandlerThreads:
    """Calls handlers. ``finished`` and ``failed`` are called from their threads.

    ``finished(execution_id, outcome)`` comes exactly once for each start, whatever the handler,
    its exception, its thread or the event loop does; ``failed(execution_id, error)`` before it
    for an exception the operator is not shown. Its execution id is empty for what a task or
    callback of the event loop raised beside the handlers.
    """

    def __init__(self, reports: Reports, finished: Finished, failed: Failed) -> None:
        self._reports = reports
        self._finished = finished
        self._failed = failed
        self._contexts: dict[str, Context] = {}
        self._tasks: dict[str, asyncio.Task[None] | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = Threads()

    def __len__(self) -> int:
        """How many handlers run."""
        return len(self._contexts)

    def start(self, start: Start, action: Action) -> None:
        """Call the handler. When the device cannot (threads, memory, descriptors), it is REJECTED."""
        try:
            context = self._contexts[start.execution_id] = self._context(start, action)
            if action.is_async:
                self._hand_over(lambda: runner.call(action, start.params, context), context)
            else:
                self._pool.run(lambda: self._call(action, start.params, context))
        except Exception as error:
            self._failed(start.execution_id, error)
            self._end(start.execution_id, runner.not_started(start.attempt, error))

    def _context(self, start: Start, action: Action) -> Context:
        return Context(
            start.execution_id,
            start.action,
            self._reports,
            deadline=None if start.timeout is None else time.monotonic() + start.timeout,
            attempt=start.attempt,
            saved=None if start.saved is None else msgspec.json.decode(start.saved),
            reboots=action.policy.reboots,
        )

    def interrupt(self, execution_id: str) -> None:
        """Ask a handler to stop. A task is cancelled; a function has to look at its context."""
        context = self._contexts.get(execution_id)
        if context is not None:
            context.stop()
        if self._loop is not None and execution_id in self._tasks:
            with contextlib.suppress(RuntimeError):  # a handler has closed the loop
                self._loop.call_soon_threadsafe(self._cancel, execution_id)

    def interrupt_all(self) -> None:
        """Ask all of them to stop."""
        for execution_id in list(self._contexts):
            self.interrupt(execution_id)

    def run_hooks(self, hooks: Iterable[Callable[[], Any]], seconds: float) -> None:
        """Call functions one after the other; each has ``seconds``. What they raise is ``failed``."""
        for hook in hooks:
            error = self._run_hook(hook, seconds)
            if error is not None:
                error.add_note(f"in {getattr(hook, '__name__', hook)}, called at the agent's start or stop")
                self._failed("", error)

    def _run_hook(self, hook: Callable[[], Any], seconds: float) -> BaseException | None:
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        async def wait(value: Any) -> None:
            try:
                await value
                ended.put(None)
            except BaseException as error:
                ended.put(error)

        def call() -> None:
            try:
                value = hook()
                if runner.is_awaitable(value):
                    loop = self._loop = self._loop or self._start_loop()
                    loop.call_soon_threadsafe(lambda: loop.create_task(wait(value)))
                else:
                    ended.put(None)
            except BaseException as error:
                ended.put(error)

        try:
            self._pool.run(call)
            return ended.get(timeout=seconds)
        except queue.Empty:
            return TimeoutError(f"it did not end within {seconds:g} s")
        except Exception as error:  # no thread
            return error

    def kill_programs(self) -> None:
        """Kill the programs that handlers wait for, without waiting: the agent ends."""
        for context in list(self._contexts.values()):
            context.kill_programs()

    def _call(self, action: Action, params: bytes, context: Context) -> None:
        ended = outcome.handler_error()
        try:
            ended_or_made = runner.run(action, params, context, self._on_error(context))
            if isinstance(ended_or_made, outcome.CallOutcome):
                ended = ended_or_made
            else:  # a plain wrapper around an async def
                self._hand_over(lambda: ended_or_made, context, begun=True)
                return
        except BaseException as error:
            self._failed(context.execution_id, error)
        self._end(context.execution_id, ended)

    def _end(self, execution_id: str, ended: CallOutcome) -> None:
        self._tasks.pop(execution_id, None)
        if self._contexts.pop(execution_id, None) is not None:
            self._finished(execution_id, ended)

    def _on_error(self, context: Context) -> Callable[[BaseException], None]:
        return lambda error: self._failed(context.execution_id, error)

    # -- on the event loop

    def _hand_over(self, made: Callable[[], Any], context: Context, *, begun: bool = False) -> None:
        """Have what ``made`` returns awaited on the loop. ``begun``: some of the handler has run."""
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = self._start_loop()
        self._tasks[context.execution_id] = None
        loop.call_soon_threadsafe(self._spawn, loop, made, context, begun)

    def _start_loop(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415 - 5 MB that agents without async handlers never need

        loop = asyncio.new_event_loop()
        # Not asyncio's own, which formats the exception and prints it: both may fail or block.
        loop.set_exception_handler(
            lambda _, what: self._failed("", what.get("exception") or RuntimeError(what["message"]))
        )
        try:
            threading.Thread(target=self._serve, args=(loop,), name="async handlers", daemon=True).start()
        except BaseException:
            loop.close()
            raise
        return loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop for ever: one handler's ``sys.exit`` or ``loop.stop`` does not end the others'."""
        while not loop.is_closed():
            try:
                loop.run_forever()
            except BaseException as error:
                self._failed("", error)
            else:
                self._failed("", RuntimeError("a handler stopped the event loop; it goes on"))
        for execution_id in list(self._tasks):
            self._end(execution_id, outcome.handler_error())

    def _spawn(
        self, loop: asyncio.AbstractEventLoop, made: Callable[[], Any], context: Context, begun: bool
    ) -> None:
        ended: list[CallOutcome] = []

        async def run() -> None:
            # Not the task's result: a handler that cancels its own task would lose it.
            ended.append(await runner.run_async(made, context, self._on_error(context)))

        def done(task: asyncio.Task[None]) -> None:
            if not ended:
                ended.append(runner.never_run(begun=begun) if task.cancelled() else outcome.handler_error())
            self._end(context.execution_id, ended[0])

        running = run()
        try:
            task = loop.create_task(running)
            self._tasks[context.execution_id] = task
            task.add_done_callback(done)
            if context.canceled:  # it was interrupted before the loop came to it
                task.cancel()
        except BaseException as error:  # a handler has put a task factory of its own into the loop
            running.close()
            self._failed(context.execution_id, error)
            self._end(context.execution_id, outcome.handler_error())

    def _cancel(self, execution_id: str) -> None:
        task = self._tasks.get(execution_id)
        if task is not None:
            task.cancel()
