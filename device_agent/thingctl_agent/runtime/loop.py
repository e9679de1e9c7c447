"""The agent's one loop: it reads the clocks, waits, and does what the session wants done.

The session, the journal and the MQTT connection belong to its thread. Handlers and the
thread that dials say what they have to say through its inbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from thingctl_agent.core.backoff import SAME_NAME, Backoff
from thingctl_agent.core.effects import Interrupt, LogLine, PublishEffect, Save, Start
from thingctl_agent.core.optional_features import ANNOUNCEMENT, TOPICS, Extras
from thingctl_agent.core.session import ANNOUNCEMENT as ANNOUNCEMENT_RECEIPT
from thingctl_agent.runtime import boot_id as boot
from thingctl_agent.runtime import forks
from thingctl_agent.runtime.dialer import Dialer
from thingctl_agent.runtime.inbox import BATCH, RequestInbox
from thingctl_agent.runtime.reports import HandlerReports
from thingctl_agent.runtime.sd_notify import Notifier
from thingctl_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_agent.core.effects import Effect
    from thingctl_agent.core.history import History
    from thingctl_agent.core.session import DeviceSession
    from thingctl_agent.handlers.registry import Registry
    from thingctl_agent.runtime.config import Config
    from thingctl_agent.runtime.journal import CallJournal
    from thingctl_agent.runtime.journal_opener import JournalOpener
    from thingctl_agent.runtime.mqtt import MqttConnection
    from thingctl_agent.runtime.workers import HandlerThreads

ACKNOWLEDGED_WITHIN: Final = 0.4
"""Seconds after the handlers' grace in which the broker may acknowledge what they led to."""

START_WITHIN: Final = 10.0
"""Seconds for each function that is called at the agent's start."""

STOP_WITHIN: Final = 1.0
"""Seconds for each function that is called at the agent's end, if ``stop_grace`` is not longer."""

_LONG_GRACE: Final = 5.0
"""Seconds; with a longer grace, the unit's TimeoutStopSec may be too short."""

CATCH_UP_EVERY: Final = 5.0
"""Seconds between two tries to write what the journal lacks, when no command comes."""

_NEVER: Final = float("inf")
_SYNC_CHECKED_EVERY: Final = 10.0


class Loop:
    """Runs one agent until it has to stop."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        session: DeviceSession,
        journal: CallJournal | None,
        *,
        notifier: Notifier | None = None,
        opener: JournalOpener | None = None,
    ) -> None:
        """``journal``: ``None`` when it cannot be used; durable commands are refused until it can."""
        self._opener = opener
        self._boot_id = ""
        self._config = config
        self._registry = registry
        self._session = session
        self._journal = journal
        self._catch_up_at = 0.0
        self._notifier = notifier or Notifier()
        self._log: Any = structlog.get_logger().bind()
        self._workers: HandlerThreads | None = None  # until the first command: an idle agent is small
        self._extras = Extras(announce=config.announce)
        self._backoff = Backoff(_draw)
        self._inbox = RequestInbox()
        self._reports = HandlerReports(self._inbox.post, session, self._do, boot.since_boot, self._wall)
        self._dialer = Dialer(config, self, self._inbox.post, self._dialed)
        self._connection: MqttConnection | None = None
        self._dial_at = 0.0
        self._watchdog_at = 0.0 if self._notifier.watchdog_interval else _NEVER
        self._stop_at: float | None = None
        self._abandoned = False
        self._announced = False
        self._present = False
        self._synchronised = False
        self._sync_check_at = 0.0

    # -- from any thread

    def stop(self) -> None:
        """Have the loop end: handlers get a moment, responses are sent, the announcement withdrawn."""
        self._inbox.post(self._begin_to_stop)

    def _on_failed(self, execution_id: str, error: BaseException) -> None:
        if execution_id:
            self._log.error("handler failed", executionId=execution_id, exc_info=error)
        else:
            self._log.error("a task or callback of the handlers' event loop failed", exc_info=error)

    # -- the loop

    def run(self, boot_id: str) -> int:
        """Run until stopped; returns the number of handlers that did not end."""
        # With renewed certificates a new connection is needed: that is what SIGHUP is for.
        restore = self._inbox.take_signals(
            {
                signal.SIGTERM: self._begin_to_stop,
                signal.SIGINT: self._begin_to_stop,
                signal.SIGHUP: self._reconnect,
            }
        )
        self._boot_id = boot_id
        with forks.given_up(
            self._give_up_journal, self._give_up_connection, self._dialer.drop, self._inbox.release
        ):
            self._run_to_end(restore)
        return self._handlers_left

    def _run_to_end(self, restore: Callable[[], None]) -> None:
        try:
            self._run_hooks("start", START_WITHIN)
            self._recover()
            self._notifier.ready()
            self._log.info(
                "started", thing=self._config.thing, url=_plain_url(self._config), actions=len(self._registry)
            )
            while not self._turn():
                pass
        finally:
            self._end()
            restore()

    def _give_up_journal(self) -> None:
        if self._journal is not None:
            self._journal.release()

    def _give_up_connection(self) -> None:
        if self._connection is not None:
            self._connection.drop()

    def _turn(self) -> bool:
        """Wait once and do what is to be done; returns whether all is done."""
        now = boot.since_boot()
        if self._finished_stopping(now):
            return True
        if self._idle and now >= self._dial_at:
            self._dialer.dial()
        readable = self._inbox.wait(self._next_due() - now, self._connection)
        now = boot.since_boot()
        for _ in range(BATCH):
            if (what := self._inbox.take()) is None:
                break
            self._survive(what)
        connection = self._connection
        if connection is not None and (readable or connection.wants_write or now >= connection.next_due):
            self._serve(connection, now, readable=readable)
        due = self._session.next_due()
        if due is not None and due <= now:
            self._do(self._session.tick(now, self._wall))
        if now >= self._journal_at:
            self._mend_journal(now)
        if now >= self._watchdog_at:
            assert self._notifier.watchdog_interval is not None
            self._feed_watchdog(now, self._notifier.watchdog_interval)
        if self._connection is not None and self._connection.wants_write:
            self._serve(self._connection, now, readable=False)  # what this turn has published
        return False

    def _feed_watchdog(self, now: float, interval: float) -> None:
        """Show that the agent works, unless every place is held by a call that timed out.

        Such an agent answers no durable command any more; the service manager restarts it.
        """
        if self._session.hung:
            self._watchdog_at = now + interval / 4
            return
        self._notifier.alive()
        self._watchdog_at = now + interval

    def _serve(self, connection: MqttConnection, now: float, *, readable: bool) -> None:
        """Read and write. A descriptor that a handler has closed under it is a lost connection."""
        try:
            connection.serve(now, readable=readable)
        except Exception as error:
            self._log.exception("connection given up")
            if connection is self._connection:
                with contextlib.suppress(OSError):
                    connection.drop()
                self.on_lost(f"the connection failed: {error}")

    @property
    def _journal_at(self) -> float:
        """When to try again to open the journal, or to write what it lacks."""
        if self._journal is not None:
            return self._catch_up_at if self._journal.is_behind else _NEVER
        return _NEVER if self._opener is None else self._opener.retry_at

    def _mend_journal(self, now: float) -> None:
        if self._journal is not None:
            self._catch_up_at = now + CATCH_UP_EVERY
            with contextlib.suppress(OSError):
                self._journal.catch_up()
                self._log.info("the journal has all records again")
        elif self._opener is not None:
            self._take_journal(self._opener.open_again())

    @property
    def _idle(self) -> bool:
        """Whether the next thing to do about the connection is to dial."""
        return self._connection is None and not self._dialer.dialing and self._stop_at is None

    def _survive(self, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception:
            self._log.exception("not handled")

    def _next_due(self) -> float:
        due = self._session.next_due()
        times = [self._watchdog_at, self._journal_at, _NEVER if due is None else due]
        if self._connection is not None:
            times.append(self._connection.next_due)
        elif self._idle:
            times.append(self._dial_at)
        if self._stop_at is not None:
            times.append(self._gone_at if self._abandoned else self._stop_at + self._config.stop_grace)
        return min(times)

    # -- effects

    def _do(self, effects: Iterable[Effect]) -> set[str]:
        """Do the effects in order; returns the executions of which a record could not be written."""
        unsaved: set[str] = set()
        for effect in effects:
            match effect:
                case Save(record, flush):
                    if not self._save(effect, flush=flush):
                        unsaved.add(getattr(record, "execution_id", ""))
                case PublishEffect(topic, payload, retain, receipt):
                    if self._connection is not None:
                        self._connection.publish(topic, payload, retain=retain, receipt=receipt)
                case Start(execution_id):
                    if execution_id not in unsaved:
                        self._start(effect)
                case Interrupt(execution_id):
                    self._interrupt(execution_id)
                case LogLine(level, event, fields):
                    getattr(self._log, level)(event, **fields)
        return unsaved

    def _start(self, start: Start) -> None:
        action = self._registry.get(start.action)
        assert action is not None, "the session starts what is registered"
        self._backoff.worked()
        self._the_workers().start(start, action)

    def _the_workers(self) -> HandlerThreads:
        if self._workers is None:
            from thingctl_agent.runtime.workers import HandlerThreads  # noqa: PLC0415

            self._workers = HandlerThreads(self._reports, self._reports.finished, self._on_failed)
        return self._workers

    def _run_hooks(self, when: str, seconds: float) -> None:
        hooks = self._registry.hooks(when)
        if hooks:
            self._the_workers().run_hooks(hooks if when == "start" else reversed(hooks), seconds)

    def _interrupt(self, execution_id: str) -> None:
        if self._workers is not None:
            self._workers.interrupt(execution_id)

    def _save(self, save: Save, *, flush: bool) -> bool:
        if self._journal is None and self._opener is not None:
            self._take_journal(self._opener.open_for_a_command())
        try:
            if self._journal is not None:
                self._journal.append(save.record, flush=flush)
                return True
            reason = "there is no journal"
        except OSError as error:
            reason = str(error)
        self._log.warning("not recorded", reason=reason)
        now = boot.since_boot()
        self._do(self._session.unsaved(save.record, now, self._wall))
        return False

    def _take_journal(self, journal: CallJournal | None) -> None:
        """Go on with a journal that could be opened at last."""
        if journal is None:
            return
        self._journal = journal
        self._recover(journal.history)

    def _recover(self, found: History | None = None) -> None:
        """Take up what an earlier run left, ``found`` in a journal that was opened late."""
        journal, now, boot_id = self._journal, boot.since_boot(), self._boot_id
        trusted = journal is not None and journal.trusted
        self._do(self._session.recover(boot_id, now, self._wall, trusted=trusted, found=found))
        if journal is not None:
            with contextlib.suppress(OSError):
                journal.opened(boot_id)

    # -- the connection

    def _dialed(self, connection: MqttConnection | None, problem: str) -> None:
        if connection is None:
            self._failed(problem)
            return
        if self._stop_at is not None:
            connection.drop()
            return
        now = boot.since_boot()
        connection.begin(now)
        self._connection = connection
        self._serve(connection, now, readable=False)

    def _failed(self, reason: str) -> None:
        now = boot.since_boot()
        wait = self._backoff.failed(now)
        self._dial_at = now + wait
        hint = {"hint": SAME_NAME} if self._backoff.flaps else {}
        self._log.warning("not connected", reason=reason, retryIn=round(wait, 1), **hint)
        self._notifier.status(f"not connected: {reason}")

    def on_connected(self) -> None:
        """CONNACK."""
        assert self._connection is not None
        now = boot.since_boot()
        topics, thing = self._session.topics, self._session.thing
        filters = [(topics.request_filter(thing), 1)]
        if self._extras.wanted(TOPICS):
            self._extras.asking(TOPICS)
            filters += [(topics.cancel_filter(thing), 1), (topics.time(thing), 0)]
        self._connection.subscribe(filters)
        self._do(self._session.connected(now))

    def on_subscribed(self, *, extras: bool) -> None:
        """SUBACK."""
        now = boot.since_boot()
        self._extras.answered()
        self._backoff.ready(now)
        self._log.info("ready for commands", extras=extras)
        self._notifier.status("connected and ready for commands")
        self._do(self._session.subscribed(now))
        if self._extras.wanted(ANNOUNCEMENT):
            self._extras.asking(ANNOUNCEMENT)
            self._announce()
        if self._config.presence:
            self._present = True
            self._do([self._session.presence(online=True)])

    def _announce(self) -> None:
        try:
            announcement = self._session.announcement()
        except ProtocolError as error:
            self._extras.answered()
            self._log.warning("the actions are not announced", reason=str(error))
            return
        self._announced = True
        self._do([announcement])

    def on_message(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """A message; it is acknowledged when this returns, so what must be on the disk is."""
        now = boot.since_boot()
        self._survive(lambda: self._do(self._session.message(topic, payload, now, self._wall, retain=retain)))

    def on_acknowledged(self, receipt: str) -> None:
        """PUBACK."""
        if receipt == ANNOUNCEMENT_RECEIPT:
            self._extras.answered()
        else:
            self._do(self._session.acknowledged(receipt))

    def on_lost(self, reason: str) -> None:
        """No connection any more."""
        self._connection = None
        self._announced = self._present = False
        given_up = self._extras.lost()
        if given_up is not None:
            self._log.warning("the broker seems not to want this; going on without", what=given_up)
        self._do(self._session.disconnected())
        self._failed(reason)

    # -- time

    def _wall(self) -> float | None:
        """The wall clock, if it is known to be right."""
        if self._config.wall_clock == "auto":
            now = boot.since_boot()
            if now >= self._sync_check_at:
                self._synchronised = boot.clock_is_synchronised()
                self._sync_check_at = now + _SYNC_CHECKED_EVERY
            return time.time() if self._synchronised else None
        return time.time() if self._config.wall_clock == "trust" else None

    # -- stopping

    def _reconnect(self) -> None:
        self._dial_at = 0.0
        if self._connection is not None:
            self._part()
            self._announced = False
            self._extras.answered()
            self._do(self._session.disconnected())

    def _part(self) -> None:
        """Leave the broker properly: it forgets the will, so what that says is said here."""
        assert self._connection is not None
        if self._present:
            self._present = False
            self._do([self._session.presence(online=False)])
        connection, self._connection = self._connection, None
        connection.close()

    def _begin_to_stop(self) -> None:
        if self._stop_at is not None:
            return
        self._stop_at = boot.since_boot()
        self._log.info("stopping")
        self._notifier.stopping()
        grace = self._config.stop_grace
        if grace > _LONG_GRACE:
            hooks = len(self._registry.hooks("stop"))
            self._notifier.stopping_takes((1 + hooks) * grace + _LONG_GRACE)
        self._do(self._session.stop())
        if self._announced:
            self._do([self._session.withdrawal()])

    def _finished_stopping(self, now: float) -> bool:
        if self._stop_at is None:
            return False
        if not self._abandoned and (not self._session.busy or now >= self._stop_at + self._config.stop_grace):
            self._abandoned = True
            self._do(self._session.abandon())
        if not self._abandoned:
            return False
        nobody_listens = self._connection is None or not self._session.unacknowledged
        return nobody_listens or now >= self._gone_at

    @property
    def _gone_at(self) -> float:
        assert self._stop_at is not None
        return self._stop_at + self._config.stop_grace + ACKNOWLEDGED_WITHIN

    def _end(self) -> None:
        if self._workers is not None:
            self._workers.kill_programs()
        if self._connection is not None:
            self._part()
        if self._journal is not None:
            self._journal.close()
        self._run_hooks("stop", max(STOP_WITHIN, self._config.stop_grace))
        self._log.info("stopped", handlersLeft=self._handlers_left)

    @property
    def _handlers_left(self) -> int:
        return 0 if self._workers is None else len(self._workers)


def _plain_url(config: Config) -> str:
    """The URL without the password that may stand in it."""
    broker = config.broker
    return f"mqtt{'s' if broker.tls else ''}://{broker.host}:{broker.port}"


def _draw(low: float, high: float) -> float:
    """A random number between the two, without the 0.3 MB of the random module."""
    return low + (high - low) * int.from_bytes(os.urandom(6)) / 2**48
