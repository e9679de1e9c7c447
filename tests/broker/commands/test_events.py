"""Whoever listens hears everything, in order, and harms nobody."""

from structlog.testing import capture_logs

from broker_support import make_execution
from thingctl_broker.commands.events import Change, Counters, Events


def test_every_listener_hears_every_change_in_order():
    events, heard = Events(), []
    events.subscribe(lambda execution, change: heard.append((1, change)))
    events.subscribe(lambda execution, change: heard.append((2, change)))
    execution = make_execution()
    events.emit(execution, Change.CREATED)
    events.emit(execution, Change.ENDED)
    assert heard == [(1, Change.CREATED), (2, Change.CREATED), (1, Change.ENDED), (2, Change.ENDED)]


def test_who_asks_for_some_changes_hears_only_those():
    events, heard = Events(), []
    leave = events.subscribe(
        lambda execution, change: heard.append(change), (Change.ENDED, Change.LATE, Change.ENDED)
    )
    for change in Change:
        events.emit(make_execution(), change)
    assert heard == [Change.ENDED, Change.LATE]
    leave()
    events.emit(make_execution(), Change.ENDED)
    assert heard == [Change.ENDED, Change.LATE]


def test_who_leaves_hears_no_more_even_in_the_middle():
    events, heard = Events(), []

    def once(execution, change):
        heard.append("once")
        leave()

    leave = events.subscribe(once)
    events.subscribe(lambda execution, change: heard.append("always"))
    for _ in range(2):
        events.emit(make_execution(), Change.CREATED)
    assert heard == ["once", "always", "always"]


def test_a_listener_that_raises_is_logged_and_the_others_still_hear():
    events, heard = Events(), []
    events.subscribe(lambda execution, change: 1 / 0)
    events.subscribe(lambda execution, change: heard.append(change))
    with capture_logs() as logs:
        events.emit(make_execution(), Change.ENDED)
    assert heard == [Change.ENDED]
    assert [(entry["event"], entry["change"], entry["log_level"]) for entry in logs] == [
        ("listener failed", "ended", "error")
    ]


def test_a_counter_that_never_counted_is_zero():
    counters = Counters()
    assert counters["dropped.badPayload"] == 0
    counters["dropped.badPayload"] += 1
    assert dict(counters) == {"dropped.badPayload": 1}
