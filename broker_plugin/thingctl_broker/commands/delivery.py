"""Which request goes to which thing, and when.

Pure. The table is the queue: this holds only ids. For each thing the requests that
were published and not yet acknowledged (at most ``window`` of them), and behind them
those that wait, in the order of creation. A request leaves when it is acknowledged or
when its execution has ended, so an expired one is never published. Apart from these,
the executions that the device is to stop: their requests never go out again, and the
cancel is repeated whenever the thing comes back, until the execution has ended.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

WINDOW: Final = 64
"""Requests published to one thing and not yet acknowledged, by default."""

QUEUE_MAX: Final = 1000
"""Requests waiting for one thing, by default."""


class PublishRequest(NamedTuple):
    """Publish this request. ``again``: it was published before, so DUP is set [MQTT-3.3.1-1]."""

    execution_id: str
    again: bool


class _Thing:
    __slots__ = ("canceling", "reachable", "unacknowledged", "waiting", "window")

    def __init__(self, window: int) -> None:
        self.reachable = False
        self.window = window
        # Dicts for their order and for leaving from the middle; ordered ones leave cheaply
        # from the front too, where a plain one would step over all that left before.
        self.unacknowledged: dict[str, None] = {}
        self.waiting: OrderedDict[str, None] = OrderedDict()
        self.canceling: dict[str, None] = {}


class Deliveries:
    """The state of delivery to every thing that has any."""

    def __init__(self, window: int = WINDOW, queue_max: int = QUEUE_MAX) -> None:
        self.window = window
        self.queue_max = queue_max
        self._things: dict[str, _Thing] = {}

    def is_reachable(self, thing: str) -> bool:
        """Whether the thing is connected and subscribed to its requests."""
        state = self._things.get(thing)
        return state is not None and state.reachable

    def has_room(self, thing: str) -> bool:
        """Whether one more request may wait for the thing."""
        state = self._things.get(thing)
        return state is None or len(state.waiting) < self.queue_max

    def waiting(self, thing: str) -> int:
        """How many requests wait for the thing."""
        state = self._things.get(thing)
        return 0 if state is None else len(state.waiting)

    def add(self, thing: str, execution_id: str) -> bool:
        """Take in a new request; return whether to publish it now. False: it waits."""
        state = self._things.get(thing)
        if state is None:
            state = self._things[thing] = _Thing(self.window)
        if state.reachable and not state.waiting and len(state.unacknowledged) < state.window:
            state.unacknowledged[execution_id] = None
            return True
        state.waiting[execution_id] = None
        return False

    def restore(self, thing: str, execution_id: str, *, published: bool) -> None:
        """Take in a request read back from a store, in the order of creation."""
        state = self._things.get(thing)
        if state is None:
            state = self._things[thing] = _Thing(self.window)
        (state.unacknowledged if published else state.waiting)[execution_id] = None

    def reachable(self, thing: str, window: int | None = None) -> list[PublishRequest]:
        """The thing has subscribed: publish the unacknowledged again, then what waits.

        ``window``: requests that its client takes before it acknowledges one; None: enough.
        """
        state = self._things.get(thing)
        if state is None:
            state = self._things[thing] = _Thing(self.window)
        state.reachable = True
        state.window = self.window if window is None else min(self.window, window)
        while len(state.unacknowledged) > state.window:  # the client before took more
            execution_id, _ = state.unacknowledged.popitem()
            state.waiting[execution_id] = None
            state.waiting.move_to_end(execution_id, last=False)
        again = [PublishRequest(execution_id, again=True) for execution_id in state.unacknowledged]
        return again + self._fill(state)

    def unreachable(self, thing: str) -> None:
        """The thing has gone or unsubscribed; everything waits."""
        state = self._things.get(thing)
        if state is not None:
            state.reachable = False
            self._forget_if_idle(thing, state)

    def canceling(self, thing: str) -> tuple[str, ...]:
        """The executions that the thing is to stop, in the order of the wishes."""
        state = self._things.get(thing)
        return () if state is None else tuple(state.canceling)

    def cancel(self, thing: str, execution_id: str) -> list[PublishRequest]:
        """The device is to stop a published request; return what may follow it."""
        state = self._things.get(thing)
        if state is None:
            state = self._things[thing] = _Thing(self.window)
        state.canceling[execution_id] = None
        return self._leave(thing, state, execution_id)

    def acknowledged(self, thing: str, execution_id: str) -> list[PublishRequest]:
        """The device has the request; return what may follow."""
        state = self._things.get(thing)
        return [] if state is None else self._leave(thing, state, execution_id)

    def ended(self, thing: str, execution_id: str) -> list[PublishRequest]:
        """The execution has ended; return what may follow."""
        state = self._things.get(thing)
        if state is None:
            return []
        state.canceling.pop(execution_id, None)
        return self._leave(thing, state, execution_id)

    def _leave(self, thing: str, state: _Thing, execution_id: str) -> list[PublishRequest]:
        if execution_id in state.unacknowledged:
            del state.unacknowledged[execution_id]
        else:
            state.waiting.pop(execution_id, None)
        if not state.reachable:
            self._forget_if_idle(thing, state)
            return []
        return self._fill(state) if state.waiting else []

    def _fill(self, state: _Thing) -> list[PublishRequest]:
        requests: list[PublishRequest] = []
        while state.waiting and len(state.unacknowledged) < state.window:
            execution_id, _ = state.waiting.popitem(last=False)
            state.unacknowledged[execution_id] = None
            requests.append(PublishRequest(execution_id, again=False))
        return requests

    def _forget_if_idle(self, thing: str, state: _Thing) -> None:
        if not (state.reachable or state.unacknowledged or state.waiting or state.canceling):
            del self._things[thing]
