"""The loop's own duties: effects in order, surviving what it is handed, waking and stopping."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest

from agent.harness import until
from thingctl_agent.core.effects import LogLine, PublishEffect, Save, Start
from thingctl_agent.core.history import Accepted, History
from thingctl_agent.core.session import DeviceSession
from thingctl_agent.handlers.registry import Registry
from thingctl_agent.runtime.config import Config
from thingctl_agent.runtime.loop import Loop, _draw
from thingctl_agent.runtime.sd_notify import Notifier


class Quiet(Notifier):
    def __init__(self, interval=None):
        super().__init__({})
        self.watchdog_interval = interval
        self.said = []

    def _send(self, state):
        self.said.append((state, time.monotonic()))


class BrokenJournal:
    trusted = True

    is_behind = True

    def catch_up(self):
        raise OSError(28, "No space left on device")

    def append(self, record, *, flush):
        raise OSError(5, "Input/output error")

    def opened(self, boot_id):
        raise OSError(5, "Input/output error")

    def close(self):
        pass


@pytest.fixture
def make():
    made = []

    def loop(journal=None, notifier=None, registry=None):
        registry = registry or Registry()
        config = Config(thing="t", url="mqtt://127.0.0.1:1")
        session = DeviceSession("t", registry, History())
        made.append(Loop(config, registry, session, journal, notifier=notifier or Quiet()))
        return made[-1]

    yield loop
    for one in made:
        os.close(one._inbox._wake_read)
        os.close(one._inbox._wake_write)


def run(loop):
    result = []
    thread = threading.Thread(target=lambda: result.append(loop.run("boot-1")))
    thread.start()
    return thread, result


def test_ready_is_said_before_any_connection_and_stopping_at_the_end(make):
    notifier = Quiet()
    loop = make(notifier=notifier)
    thread, result = run(loop)
    loop.stop()
    thread.join(5)
    assert result == [0]
    states = [state for state, _ in notifier.said]
    assert states[0] == "READY=1"
    assert "STOPPING=1" in states


def test_the_watchdog_is_fed_from_the_loop(make):
    notifier = Quiet(interval=0.05)
    loop = make(notifier=notifier)
    thread, _ = run(loop)
    time.sleep(0.5)
    loop.stop()
    thread.join(5)
    assert 3 <= [state for state, _ in notifier.said].count("WATCHDOG=1") <= 12


def test_the_watchdog_is_not_fed_while_every_place_hangs(make, monkeypatch):
    notifier = Quiet(interval=0.05)
    loop = make(notifier=notifier)
    hung = threading.Event()
    monkeypatch.setattr(type(loop._session), "hung", property(lambda _: hung.is_set()))
    thread, _ = run(loop)
    said = lambda: [state for state, _ in notifier.said].count("WATCHDOG=1")  # noqa: E731
    until(said)
    hung.set()
    time.sleep(0.1)
    before = said()
    time.sleep(0.3)
    assert said() <= before + 1
    hung.clear()
    until(lambda: said() > before + 1)
    loop.stop()
    thread.join(5)


def test_what_raises_in_the_loop_does_not_end_it(make):
    loop = make()
    thread, _ = run(loop)
    loop._inbox.post(lambda: 1 / 0)
    answered = threading.Event()
    loop._inbox.post(answered.set)
    assert answered.wait(5)
    loop.stop()
    thread.join(5)


def test_a_message_that_cannot_be_handled_is_survived(make, monkeypatch):
    loop = make()
    topics = []

    def message(topic, *_, **__):
        topics.append(topic)
        if topic == "bad":
            raise ZeroDivisionError
        return []

    monkeypatch.setattr(loop._session, "message", message)
    loop.on_message("bad", b"", retain=False)
    loop.on_message("good", b"", retain=False)
    assert topics == ["bad", "good"]


def test_what_cannot_be_saved_is_not_started(make):
    called = threading.Event()
    registry = Registry()
    registry.add(called.set, "a", stale="run")
    for journal in (BrokenJournal(), None):
        loop = make(journal, registry=registry)
        record = Accepted("e1", "a", b"{}", 0.0, 60.0, None)
        loop._do([Save(record, flush=True), Start("e1", "a", b"{}", None, 1, None), LogLine("info", "x", {})])
        assert not called.wait(0.1)
        assert loop._handlers_left == 0


def test_what_is_published_without_a_connection_is_not_for_a_later_one(make):
    loop = make()
    loop._do([PublishEffect("early", b"x")])
    published = []
    loop._connection = SimpleNamespace(publish=lambda topic, *_, **__: published.append(topic))
    loop._do([PublishEffect("late", b"x")])
    assert published == ["late"]


def test_a_broken_journal_does_not_keep_it_from_running(make):
    loop = make(BrokenJournal())
    thread, result = run(loop)
    loop.stop()
    thread.join(5)
    assert result == [0]


def test_a_dial_that_finds_no_thread_is_tried_again(make, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    loop = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        loop._dialer.dial()
    assert not loop._dialer.dialing
    assert loop._idle
    assert loop._dial_at > 0


def test_draws_are_within_their_bounds():
    drawn = [_draw(0.0, 8.0) for _ in range(1000)]
    assert 0 <= min(drawn) < 1
    assert 7 < max(drawn) <= 8


def test_an_announcement_that_is_too_long_is_logged_and_not_published(make, monkeypatch):
    registry, logged = Registry(), []

    def wordy() -> None: ...

    wordy.__doc__ = "x" * 300_000
    registry.add(wordy)
    loop = make(registry=registry)
    monkeypatch.setattr(loop, "_log", SimpleNamespace(warning=lambda event, **_: logged.append(event)))
    loop._announce()
    assert logged == ["the actions are not announced"]
    assert not loop._announced
