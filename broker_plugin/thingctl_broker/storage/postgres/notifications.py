"""Hears what has been committed, by this worker or another, on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from thingctl_broker.storage.postgres import documents, rollouts, transition_sql
from thingctl_broker.storage.postgres.errors import unreachable
from thingctl_broker.storage.postgres.pool import PooledConnection, options
from thingctl_broker.system.backoff import ExponentialBackoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.cluster.store_port import Heard
    from thingctl_broker.storage.postgres.settings import StoreSettings

HEARTBEAT: Final = 1.0
"""Seconds between two looks whether the connection is there still: silence is no sign of it."""

ANSWER_WITHIN: Final = 2.0
"""Seconds that the store has to answer one that asks for nothing, and again to let a new connection in."""

RECONNECT: Final = ExponentialBackoff(first=0.2, longest=10.0)
"""Between two tries to connect."""

_log = structlog.get_logger("thingctl.store")


def _nobody_asks(_: bool, /) -> None:
    """Nobody wants to know whether the store answers."""


class NotificationListener:
    """Tells ``heard``, in the loop, in the order of the commits."""

    def __init__(
        self, settings: StoreSettings, heard: Heard, answers: Callable[[bool], None] = _nobody_asks
    ) -> None:
        """``answers(whether)``: told after each try to connect whether the store answers at all.

        A store that is slow does; one that is away says so. One that does neither hangs.
        """
        self._settings = settings
        self._heard = heard
        self._answers = answers
        self._connection: Any = None
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether everything that is committed now is heard."""
        return self._connection is not None and not self._lost.is_set()

    async def start(self) -> None:
        """Begin to listen; what is committed from now on is told. Raises :class:`StoreDown`."""
        try:
            await self._connect(self._settings.connect_timeout)
        except Exception as error:
            raise unreachable(error) from None
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="store listener")

    async def stop(self) -> None:
        """Stop listening."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        await self._close()

    async def _connect(self, within: float) -> None:
        arguments = options(self._settings)
        arguments["timeout"] = min(within, arguments["timeout"])
        connection = await asyncpg.connect(self._settings.url, connection_class=PooledConnection, **arguments)
        try:
            connection.add_termination_listener(self._terminated)
            await connection.add_listener(transition_sql.CHANNEL, self._notified)
        except BaseException:
            connection.terminate()
            raise
        self._lost.clear()
        self._connection = connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._terminated)
            with contextlib.suppress(Exception):  # it may be gone already, in any way
                await connection.close(timeout=1.0)
            connection.terminate()

    def _drop(self) -> None:
        """The connection is lost: nobody is told, because nobody would answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._terminated)
            connection.terminate()

    async def _keep(self) -> None:
        while True:
            await self._until_lost()
            self._drop()
            _log.warning("changes in the store are not heard: the connection is lost")
            failures, within = 1, ANSWER_WITHIN
            while True:
                try:
                    await self._connect(within)
                    self._answers(True)
                    break
                except Exception as error:
                    hangs = isinstance(error, TimeoutError)
                    self._answers(not hangs)
                    await asyncio.sleep(RECONNECT.delay(failures))
                    within = self._settings.connect_timeout
                    if not hangs:  # where it does, trying takes long enough: nobody is served before
                        failures += 1
            _log.warning("changes in the store are heard again")
            self._tell(self._heard.missed)

    async def _until_lost(self) -> None:
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._lost.wait()
            if not self._lost.is_set() and not await self._is_heard():
                return

    async def _is_heard(self) -> bool:
        # Neither timed out nor canceled by asyncpg, which would go and tell the server so.
        answer = asyncio.ensure_future(self._connection.fetchval("SELECT 1"))
        answer.add_done_callback(_look_at)
        await asyncio.wait({answer}, timeout=ANSWER_WITHIN)
        return answer.done() and not answer.cancelled() and answer.exception() is None

    def _terminated(self, connection: object) -> None:
        if connection is self._connection:
            self._lost.set()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        kind, rest = text[:1], text[1:]
        if kind == transition_sql.EXECUTIONS_PAYLOAD:
            marked = rest.split(",")
            changed = [one.removeprefix(transition_sql.ENDED_MARK) for one in marked]
            ended = [one[1:] for one in marked if one.startswith(transition_sql.ENDED_MARK)]
            self._tell(self._heard.changed, changed, ended)
        elif kind == documents.PAYLOAD:
            for entry in rest.split(documents.SEPARATOR):
                if entry:
                    document, _, name = entry.partition(":")
                    self._tell(self._heard.document_changed, document, name)
        elif kind == rollouts.PAYLOAD:
            self._tell(self._heard.rollout_changed, rest)
        # Whatever else there is, a newer worker has to say.

    def _tell(self, call: Any, *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            _log.exception("telling of a change in the store failed")


def _look_at(answer: asyncio.Future[Any]) -> None:
    """Whatever it is that came of it has been seen."""
    if not answer.cancelled():
        answer.exception()
