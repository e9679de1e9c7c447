"""Calls the event callbacks of amqtt's plugins for clients of our server.

amqtt starts a task for each event and waits for none. Here events wait in order, at most so many of
them run at a time, and what is more than the bounds is lost and counted: a slow plugin costs its own
events, and neither memory nor a client's time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from amqtt.events import BrokerEvents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Arguments: TypeAlias = Callable[[], dict[str, Any]]

RUNNING: Final = 100
"""Callbacks that run at a time."""

WAITING: Final = 10_000
"""Events that wait."""

WAITING_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the messages in them."""

FIRED: Final = (
    BrokerEvents.CLIENT_CONNECTED,
    BrokerEvents.CLIENT_DISCONNECTED,
    BrokerEvents.CLIENT_SUBSCRIBED,
    BrokerEvents.CLIENT_UNSUBSCRIBED,
    BrokerEvents.MESSAGE_RECEIVED,
    BrokerEvents.MESSAGE_BROADCAST,
    BrokerEvents.RETAINED_MESSAGE,
)
"""The events that clients of our server cause. Packets are not among them."""


class FaultNote(Protocol):
    """Counts a fault, and logs it now and then."""

    def __call__(self, fault: str, text: str, *, who: str = "", **details: object) -> None:
        """``who``: the client or plugin that caused it."""
        ...


class _Callback(NamedTuple):
    plugin: str
    function: Callable[..., Awaitable[object]]


class _QueuedEvent(NamedTuple):
    event: BrokerEvents
    arguments: Arguments
    size: int


class PluginEvents:
    """The callbacks of some plugins, and the events that wait for them."""

    def __init__(self, plugins: Iterable[object], note: FaultNote) -> None:
        self._note = note
        found = tuple(plugins)
        self._callbacks = {event: _callbacks(found, event) for event in FIRED}
        self._waiting: deque[_QueuedEvent] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None

    def listens(self, *events: BrokerEvents) -> bool:
        """Whether any plugin has a callback for one of these events; without any named: for any event."""
        return any(self._callbacks[event] for event in events or FIRED)

    def start(self) -> None:
        """Begin to call."""
        if self.listens():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Drop what waits, and cancel what runs."""
        tasks = [*self._running] if self._worker is None else [self._worker, *self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def fire(self, event: BrokerEvents, arguments: Arguments, size: int = 0) -> None:
        """Have the callbacks of an event called. ``arguments`` makes what they get, when it is their turn.

        ``size``: the bytes that wait with it.
        """
        if not self._callbacks[event]:
            return
        if len(self._waiting) >= WAITING or self._bytes + size > WAITING_BYTES:
            self._note(
                "pluginEventsLost", "amqtt's plugins are too slow: an event is lost", event=f"on_{event}"
            )
            return
        self._waiting.append(_QueuedEvent(event, arguments, size))
        self._bytes += size
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._begin(self._waiting.popleft())

    async def _begin(self, waiting: _QueuedEvent) -> None:
        while len(self._running) >= RUNNING:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        self._bytes -= waiting.size
        arguments = waiting.arguments()
        for callback in self._callbacks[waiting.event]:
            task = asyncio.get_running_loop().create_task(self._call(callback, waiting.event, arguments))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _call(self, callback: _Callback, event: BrokerEvents, arguments: dict[str, Any]) -> None:
        try:
            await callback.function(**arguments)
        except Exception as error:  # whatever a plugin of the user's raises
            text = "a plugin of amqtt's failed in an event"
            self._note("pluginFailed", text, who=callback.plugin, event=f"on_{event}", error=repr(error))


def _callbacks(plugins: tuple[object, ...], event: BrokerEvents) -> tuple[_Callback, ...]:
    found = ((type(plugin).__name__, getattr(plugin, f"on_{event}", None)) for plugin in plugins)
    return tuple(_Callback(name, function) for name, function in found if function is not None)
