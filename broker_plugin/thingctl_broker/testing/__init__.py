"""Fakes that ship: drive the service with no broker, no socket and no waiting.

>>> from thingctl_broker.testing import service_with_fakes
>>> service, link, clock = service_with_fakes(things=["lamp"])
>>> execution = service.send("lamp", "turnOn", ttl=5)
>>> execution.status, execution.delivery
(<Status.SENT: 'SENT'>, <Delivery.QUEUED: 'QUEUED'>)
>>> clock.advance(5); service.expire(); execution.status
1
<Status.TIMED_OUT: 'TIMED_OUT'>
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from thingctl_broker.cluster.link_port import Handed, LinkDown, Source
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.storage.sqlite.execution_rows import Row, RowReader, to_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from thingctl_broker.cluster.link_port import InboundPort, PresenceReport
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.ports import Journal


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, monotonic: float = 1000.0, unix: float = 1_748_390_400.0) -> None:
        self._monotonic = monotonic
        self._unix = unix

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return self._monotonic

    def unix(self) -> float:
        """Seconds since 1970."""
        return self._unix

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._monotonic += seconds
        self._unix += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock wrong, as NTP or a hand does; no time passes."""
        self._unix += seconds


class Published(NamedTuple):
    """A request that went out over an :class:`InMemoryLink`."""

    thing: str
    execution_id: str
    payload: bytes
    again: bool


class InMemoryLink:
    """Remembers what would have gone to the things. ``acknowledging``: a PUBACK is to follow."""

    def __init__(self, *, acknowledging: bool = True) -> None:
        self.acknowledging = acknowledging
        self.published: list[Published] = []
        self.canceled: list[tuple[str, str]] = []

    def publish_request(self, thing: str, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Remember a request."""
        self.published.append(Published(thing, execution_id, payload, again))
        return self.acknowledging

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Remember a cancel."""
        self.canceled.append((thing, execution_id))


class Requested(NamedTuple):
    """A request that went out over a :class:`FakeClusterLink`. ``expires_in``: seconds."""

    thing: str
    execution_id: str
    payload: bytes
    expires_in: float


class FakeClusterLink:
    """A worker's link to a cluster that is not there; things are functions.

    A thing takes the execution id and the request, and returns its responses, encoded. ::

        link = FakeClusterLink()
        link.things["lamp"] = lambda execution_id, request: [b'{"status":"SUCCEEDED"}']
        await link.start(worker, on_state)
        await link.publish_request("lamp", "e1", b"…", 30)   # Handed.TAKEN; of any other: NOBODY
        await link.settled()                                  # the worker has heard the response

    What the worker raises on is not acknowledged: it is in ``unacknowledged`` until :meth:`redeliver`.
    """

    def __init__(self) -> None:
        self.connected = False
        self.is_held = False
        """Whether the cluster is slow: it acknowledges no request until :meth:`lose` or :meth:`release`."""
        self.things: dict[str, Callable[[str, bytes], Iterable[bytes]]] = {}
        self.requested: list[Requested] = []
        self.canceled: list[tuple[str, str]] = []
        self.times: list[tuple[str, float]] = []
        self.kept: dict[str, list[tuple[str, str, bytes]]] = {}
        """Sessions of workers that have died, by client id: thing, execution id, response."""
        self.retained: dict[str, bytes] = {}
        """Announcements that the cluster has kept, by thing."""
        self.unacknowledged: list[Callable[[], Awaitable[None]]] = []
        self._incoming: InboundPort | None = None
        self._on_state: Callable[[bool], None] = lambda _: None
        self._holding: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # What a worker calls (:class:`~thingctl_broker.cluster.link_port.ThingLink`).

    async def start(self, incoming: InboundPort, on_state: Callable[[bool], None]) -> None:
        """Be connected."""
        self._incoming, self._on_state = incoming, on_state
        self.restore()

    async def stop(self) -> bool:
        """Be no longer connected; True: everything was acknowledged."""
        await self.settled()
        self.lose()
        return not self.unacknowledged

    async def publish_request(
        self, thing: str, execution_id: str, payload: bytes, expires_in: float
    ) -> Handed:
        """Give the request to the thing, if there is one; its responses follow."""
        self._check()
        self.requested.append(Requested(thing, execution_id, payload, expires_in))
        if self.is_held:
            self._holding.append(asyncio.get_running_loop().create_future())
            await self._holding[-1]
        answer = self.things.get(thing)
        if answer is None:
            return Handed.NOBODY
        for response in answer(execution_id, payload):
            self.respond(thing, execution_id, response)
        return Handed.TAKEN

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Remember a cancel."""
        self._check()
        self.canceled.append((thing, execution_id))

    def publish_time(self, thing: str, at: float) -> None:
        """Remember what the thing was told."""
        if self.connected:
            self.times.append((thing, at))

    async def adopt(self, client_id: str) -> None:
        """Hand over what was ``kept`` for a worker that has died."""
        self._check()
        for thing, execution_id, response in self.kept.pop(client_id, []):
            self.respond(thing, execution_id, response)
        await self.settled()

    async def catch_up(self) -> None:
        """Hand over what was ``retained``."""
        self._check()
        for thing, payload in list(self.retained.items()):
            self.announce(thing, payload, Source.RETAINED)
        await self.settled()

    # What a test does.

    def respond(self, thing: str, execution_id: str, response: bytes) -> None:
        """Have a thing say how an execution stands."""
        self._deliver(lambda incoming: incoming.responded(thing, execution_id, response))

    def announce(self, thing: str, payload: bytes, source: Source = Source.LIVE) -> None:
        """Have a thing say what it can do."""
        self._deliver(lambda incoming: incoming.announced(thing, payload, source))

    def say(self, presence: PresenceReport) -> None:
        """Have it said that a thing has come or gone."""
        self._deliver(lambda incoming: incoming.present(presence))

    def lose(self) -> None:
        """Lose the connection: requests that are held fail."""
        self._set(connected=False)
        for held in self._holding:
            if not held.done():
                held.set_exception(LinkDown("the connection was lost"))
        self._holding.clear()

    def restore(self) -> None:
        """Have the connection back."""
        self._set(connected=True)

    def release(self) -> None:
        """Have the cluster acknowledge what it held, and go on as usual."""
        self.is_held = False
        for held in self._holding:
            if not held.done():
                held.set_result(None)
        self._holding.clear()

    def redeliver(self) -> None:
        """Deliver again what was not acknowledged."""
        again, self.unacknowledged = self.unacknowledged, []
        for handle in again:
            self._run(handle)

    async def settled(self) -> None:
        """Return when the worker has handled everything, or raised on it."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _check(self) -> None:
        if not self.connected:
            raise LinkDown("there is no connection to the MQTT cluster")

    def _set(self, *, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self._on_state(connected)

    def _deliver(self, call: Callable[[InboundPort], Awaitable[None]]) -> None:
        incoming = self._incoming
        assert incoming is not None, "the link has not been started"
        self._run(lambda: call(incoming))

    def _run(self, handle: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await handle()
            except Exception:  # whatever the worker raises, the message is still the cluster's
                self.unacknowledged.append(handle)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class InMemoryJournal:
    """A journal whose disk is a dict, and whose every step is the test's to take.

    What is recorded gathers; ``take`` hands it to the writer as it stands; ``commit`` has it
    written, ``fail`` finds the disk full. A crash is a new service on what ``recover`` gives:
    what was not committed is gone, and nobody is called back.

    >>> journal = InMemoryJournal()
    >>> service, link, clock = service_with_fakes(["lamp"], journal)
    >>> kept = service.send("lamp", "turnOn")
    >>> journal.commit()
    >>> lost = service.send("lamp", "turnOff")
    >>> [execution.action for execution in journal.recover(clock.monotonic(), clock.unix())]
    ['turnOn']
    """

    def __init__(self) -> None:
        self.accepting = True
        self.rows: dict[str, Row] = {}
        """What is on the disk."""
        self._dirty: dict[str, Execution] = {}
        self._forgotten: set[str] = set()
        self._waiting: list[tuple[Callable[[], None], Callable[[], None] | None]] = []
        self._taken: _TakenPublish | None = None

    def record(self, execution: Execution) -> None:
        """Note that the execution has changed."""
        self._dirty[execution.execution_id] = execution

    def forget(self, execution_id: str) -> None:
        """Let an execution go."""
        self._dirty.pop(execution_id, None)
        self._forgotten.add(execution_id)

    def then(self, kept: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        """Call ``kept`` when everything recorded so far is committed; at once if it is."""
        if self.idle:
            kept()
        else:
            self._waiting.append((kept, lost))

    async def start(self) -> None:
        """Do nothing: the test takes each step."""

    async def stop(self) -> None:
        """Write what is left."""
        self.commit()

    def release(self) -> None:
        """Do nothing: a dict has no lock."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._taken is None and not (self._dirty or self._forgotten or self._waiting)

    def take(self) -> None:
        """Hand what has gathered to the writer, unless that is busy."""
        if self._taken is None:
            rows = {key: to_row(execution, new=True) for key, execution in self._dirty.items()}
            self._taken = _TakenPublish(rows, self._dirty, self._forgotten, self._waiting)
            self._dirty, self._forgotten, self._waiting = {}, set(), []

    def write(self) -> None:
        """Put on the disk what the writer has; nobody hears of it yet."""
        if self._taken is not None:
            for execution_id in self._taken.forgotten:
                self.rows.pop(execution_id, None)
            self.rows |= self._taken.rows

    def commit(self) -> None:
        """Write what the writer has, or else all that has gathered, and call back."""
        self.take()
        self.write()
        assert self._taken is not None
        waiting, self._taken = self._taken.waiting, None
        self.accepting = True
        for kept, _ in waiting:
            kept()

    def fail(self) -> None:
        """Find the disk full: give back what is new, keep the rest for the next try."""
        self.take()
        assert self._taken is not None
        taken, self._taken = self._taken, None
        self.accepting = False
        again = {key: found for key, found in taken.executions.items() if key not in self._forgotten}
        self._dirty = again | self._dirty
        self._forgotten |= taken.forgotten
        waiting = taken.waiting + self._waiting
        self._waiting = [entry for entry in waiting if entry[1] is None]
        for _, lost in waiting:
            if lost is not None:
                lost()

    def recover(self, now: float, at: float) -> Iterator[Execution]:
        """Yield what is on the disk, oldest first, as of monotonic time ``now`` and wall time ``at``."""
        reader = RowReader(now, at)
        for _, row in sorted(self.rows.items()):
            yield reader.read(row)


class _TakenPublish(NamedTuple):
    rows: dict[str, Row]
    executions: dict[str, Execution]
    forgotten: set[str]
    waiting: list[tuple[Callable[[], None], Callable[[], None] | None]]


def service_with_fakes(
    things: Iterable[str] = (),
    journal: Journal | None = None,
) -> tuple[CommandService, InMemoryLink, ManualClock]:
    """A service that knows ``things``, none of them connected, on a link and a clock of its own."""
    link, clock = InMemoryLink(), ManualClock()
    service = CommandService(clock=clock, link=link, journal=NullJournal() if journal is None else journal)
    for thing in things:
        service.things.know(thing, clock.unix())
    return service, link, clock
