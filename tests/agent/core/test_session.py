"""What the agent decides, and in which order."""

from __future__ import annotations

import pytest

from agent.core import (
    UNIX,
    Core,
    interrupted,
    notes,
    registry,
    responses,
    restarted,
    saved,
    started,
    verdicts,
)
from thingctl_agent.core.effects import PublishEffect, Save, Start
from thingctl_agent.core.history import Accepted, Answered, History, Started
from thingctl_agent.core.outcome import canceled, succeeded
from thingctl_agent.core.pending import AT_WORK_AFTER, HOLD, WAITING_OVERHEAD, Limits
from thingctl_broker.commands.delivery import QUEUE_MAX, WINDOW
from thingctl_protocol.messages import decode_announcement


def kinds(effects):
    return [type(e).__name__ for e in effects if isinstance(e, Save | Start | PublishEffect)]


# -- the order of things


def test_accepted_is_flushed_and_started_written_before_the_handler_runs():
    core = Core()
    effects = core.request("e1")
    assert kinds(effects) == ["Save", "Save", "Start"]
    assert saved(effects) == [("Accepted", True), ("Started", False)]


def test_the_response_is_flushed_before_it_is_published():
    core = Core()
    core.request("e1")
    effects = core.finish("e1", succeeded({"x": 1}))
    assert kinds(effects) == ["Save", "PublishEffect"]
    assert saved(effects) == [("Answered", True)]
    assert responses(effects) == [{"status": "SUCCEEDED", "result": {"x": 1}}]


def test_an_acknowledged_response_is_cleared_once():
    core = Core()
    core.request("e1")
    core.finish("e1")
    assert saved(core.acknowledge("e1")) == [("Cleared", False)]
    assert saved(core.acknowledge("e1")) == []


def test_a_durable_command_costs_two_flushes():
    core = Core()
    core.request("e1")
    core.finish("e1")
    core.acknowledge("e1")
    assert sum(flush for _, flush in saved(core.effects)) == 2


def test_a_command_that_is_not_durable_costs_none():
    core = Core(registry(a={"durable": False}))
    core.request("e1")
    core.finish("e1")
    core.acknowledge("e1")
    assert saved(core.effects) == []
    assert verdicts(core.effects) == ["SUCCEEDED"]


# -- repeats


def test_a_repeated_request_is_ignored_while_it_runs():
    core = Core()
    core.request("e1")
    effects = core.request("e1")
    assert started(effects) == []
    assert responses(effects) == []


def test_a_repeated_request_gets_the_stored_response():
    core = Core()
    core.request("e1")
    core.finish("e1", succeeded(7))
    core.acknowledge("e1")
    effects = core.request("e1")
    assert started(effects) == []
    assert responses(effects) == [{"status": "SUCCEEDED", "result": 7}]


def test_a_retained_request_is_not_run():
    core = Core()
    effects = core.request("e1", retain=True)
    assert kinds(effects) == []
    assert notes(effects) == ["message ignored"]


def test_messages_for_others_and_of_other_kinds_are_ignored():
    core = Core()
    for topic in ("$emqx/commands/things/other/executions/e/request", "x", "$emqx/commands/things/t/actions"):
        assert kinds(core.session.message(topic, b"{}", core.now, core.wall, retain=False)) == []


# -- refusals


@pytest.mark.parametrize(
    ("payload", "verdict"),
    [
        (b"not json", "REJECTED INVALID_REQUEST"),
        (b'{"action":"a"}', "REJECTED INVALID_REQUEST"),
        (b'{"commandId":"c","action":"a","params":[],"timestamp":1,"ttl":1}', "REJECTED INVALID_REQUEST"),
        (b"\xff\xfe", "REJECTED INVALID_REQUEST"),
        (b"[" * 100_000, "REJECTED INVALID_REQUEST"),
        (b'{"commandId":"c","action":"?","params":{},"timestamp":1,"ttl":1}', "REJECTED UNKNOWN_ACTION"),
        (b'{"commandId":"c","action":"a","params":{"x":1},"timestamp":1,"ttl":1}', "REJECTED INVALID_PARAMS"),
    ],
)
def test_what_cannot_be_run_is_rejected_with_the_reason(payload, verdict):
    core = Core()
    effects = core.message("request", "e1", payload)
    assert verdicts(effects) == [verdict]
    assert started(effects) == []


def test_invalid_params_say_where():
    core = Core(registry())
    core.session._registry.add(_typed, "typed")
    effects = core.request("e1", "typed", {"values": [1, "x"]})
    assert (
        responses(effects)[0]["statusReason"]["reasonDescription"] == "Expected `int`, got `str` at /values/1"
    )


def _typed(values: list[int]) -> None: ...


def test_more_than_can_wait_is_rejected_busy_and_nothing_is_lost():
    core = Core(limits=Limits(running=1, waiting=2))
    for i in range(5):
        core.request(f"e{i}")
    assert started(core.effects) == ["e0"]
    assert verdicts(core.effects) == ["REJECTED BUSY", "REJECTED BUSY"]
    for i in range(3):
        core.finish(f"e{i}")
    assert started(core.effects) == ["e0", "e1", "e2"]


def test_a_backlog_of_all_that_a_broker_holds_is_taken_in():
    core = Core(limits=Limits(running=1))
    for i in range(QUEUE_MAX + WINDOW):
        core.request(f"e{i}")
    assert verdicts(core.effects) == []
    for i in range(QUEUE_MAX + WINDOW):
        core.finish(f"e{i}")
        core.acknowledge(f"e{i}")
    assert verdicts(core.effects) == ["SUCCEEDED"] * (QUEUE_MAX + WINDOW)


def test_waiting_params_are_bounded_in_bytes():
    core = Core(limits=Limits(running=1, waiting_bytes=WAITING_OVERHEAD + 10))
    core.session._registry.add(_typed, "typed")
    core.request("e0")
    core.request("e1", "typed", {"values": [1] * 10})
    assert verdicts(core.effects, "e1") == ["REJECTED BUSY"]


def test_a_rate_is_kept():
    core = Core(registry(a={"rate": "2/min", "concurrency": 9}))
    for i in range(3):
        core.request(f"e{i}")
    assert verdicts(core.effects) == ["REJECTED BUSY"]
    core.wait(31)
    assert started(core.request("e9")) == ["e9"]


# -- places


def test_calls_of_one_action_take_turns_and_other_actions_do_not_wait():
    core = Core()
    core.request("e1", "a")
    core.request("e2", "a")
    core.request("e3", "b")
    assert started(core.effects) == ["e1", "e3"]
    assert started(core.finish("e1")) == ["e2"]


def test_an_exclusive_group_runs_one_call_at_a_time():
    core = Core(registry(a={"exclusive": "g"}, b={"exclusive": "g"}))
    core.request("e1", "a")
    core.request("e2", "b")
    assert started(core.effects) == ["e1"]
    assert started(core.finish("e1")) == ["e2"]


def test_what_expires_while_it_waits_is_not_run():
    core = Core()
    core.request("e1")
    core.request("e2", ttl=5)
    assert verdicts(core.wait(6)) == ["REJECTED EXPIRED"]
    assert started(core.finish("e1")) == []


# -- time-outs and cancels


def test_a_time_out_is_answered_and_the_place_stays_taken_until_the_handler_ends():
    core = Core(registry(a={"timeout": 10}))
    core.request("e1")
    effects = core.wait(11)
    assert verdicts(effects) == ["FAILED TIMEOUT"]
    assert interrupted(effects) == ["e1"]
    assert verdicts(core.request("e2")) == ["REJECTED BUSY"], "it would wait for a handler that never ends"
    effects = core.finish("e1")
    assert verdicts(effects) == []
    assert started(core.request("e3")) == ["e3"]


def test_without_a_time_out_the_ttl_is_the_limit():
    core = Core()
    core.request("e1", ttl=30, age=10)
    assert verdicts(core.wait(19)) == []
    assert verdicts(core.wait(2)) == ["FAILED TIMEOUT"]


def test_a_cancel_stops_what_waits_at_once_and_asks_what_runs():
    core = Core()
    core.request("e1")
    core.request("e2")
    assert verdicts(core.cancel("e2")) == ["CANCELED CANCELED"]
    effects = core.cancel("e1")
    assert interrupted(effects) == ["e1"]
    assert verdicts(effects) == []
    assert interrupted(core.cancel("e1")) == [], "asked once"
    assert verdicts(core.finish("e1", canceled("stopped"))) == ["CANCELED CANCELED"]
    assert core.cancel("e1") == []
    assert core.cancel("unknown") == []


# -- freshness


def test_a_request_older_than_its_ttl_is_not_run_by_broker_time():
    core = Core(wall=False)
    core.broker_time()
    assert verdicts(core.request("e1", ttl=10, age=11)) == ["REJECTED EXPIRED"]
    assert started(core.request("e2", ttl=10, age=9)) == ["e2"]


def test_broker_time_wins_over_a_wrong_wall_clock():
    core = Core(wall=True)
    core.broker_time(skew=1000)
    assert verdicts(core.request("e1", ttl=60)) == ["REJECTED EXPIRED"]


def test_a_request_of_unknown_age_waits_for_the_brokers_time():
    core = Core(wall=False)
    assert started(core.request("e1", ttl=10, age=5)) == []
    assert verdicts(core.request("e2", ttl=10, age=11)) == []
    effects = core.broker_time()
    assert started(effects) == ["e1"]
    assert verdicts(effects) == ["REJECTED EXPIRED"]


def test_without_any_clock_the_policy_decides_after_a_moment():
    core = Core(registry(a={"stale": "run"}, b={"stale": "reject"}), wall=False)
    core.request("e1", "a")
    core.request("e2", "b")
    effects = core.wait(HOLD + 0.1)
    assert started(effects) == ["e1"]
    assert verdicts(effects, "e2") == ["REJECTED EXPIRED"]
    assert "age cannot be told" in responses(effects, "e2")[0]["statusReason"]["reasonDescription"]
    assert started(core.request("e3", "a")) == [], "the first one runs"
    assert verdicts(core.request("e4", "b")) == ["REJECTED EXPIRED"], "no more waiting for the broker"


def test_max_age_is_stricter_than_the_ttl():
    core = Core(registry(a={"max_age": 5}))
    assert verdicts(core.request("e1", ttl=60, age=6)) == ["REJECTED EXPIRED"]
    assert started(core.request("e2", ttl=60, age=4)) == ["e2"]


def test_a_request_from_the_future_lasts_no_longer_than_its_ttl():
    core = Core()
    core.request("e0")
    core.request("e1", ttl=10, age=-1e9)
    assert verdicts(core.wait(11), "e1") == ["REJECTED EXPIRED"]


# -- progress


def test_progress_is_limited_and_the_latest_is_said():
    core = Core()
    core.request("e1")
    said = []
    for percent in range(10):
        said += responses(core.take(core.session.progress("e1", percent, None, core.now)))
        core.now += 0.01
    assert [r["progress"]["percent"] for r in said] == [0]
    assert [r["progress"]["percent"] for r in responses(core.wait(1))] == [9]
    core.finish("e1")
    assert core.session.progress("e1", 50, None, core.now) == []


def test_a_handler_that_runs_for_a_second_is_said_to_be_at_work_once():
    core = Core()
    core.request("e1")
    assert responses(core.wait(AT_WORK_AFTER - 0.01)) == []
    assert responses(core.wait(30)) == [{"status": "IN_PROGRESS"}]
    assert responses(core.finish("e1")) == [{"status": "SUCCEEDED"}]
    assert responses(core.wait(30)) == []


def test_a_handler_that_ends_or_reports_within_a_second_is_not_said_to_be_at_work():
    core = Core(registry(a={"concurrency": 2}))
    core.request("e1")
    core.request("e2")
    core.finish("e1")
    core.take(core.session.progress("e2", 5, None, core.now))
    assert responses(core.wait(30)) == []


def test_progress_that_was_not_acknowledged_is_said_again_on_the_next_connection():
    core = Core()
    core.request("e1")
    core.wait(2)
    core.disconnect()
    core.now += 1
    assert responses(core.connect()) == [{"status": "IN_PROGRESS"}]
    core.acknowledge("progress/e1")
    core.disconnect()
    core.now += 1
    assert responses(core.connect()) == []


def test_what_is_said_while_there_is_no_connection_gives_way_to_the_verdict():
    core = Core(connected=False)
    core.request("e1")
    core.wait(2)
    core.finish("e1")
    assert responses(core.connect()) == [{"status": "SUCCEEDED"}]


def test_an_acknowledgement_of_progress_is_not_one_of_the_response():
    core = Core()
    core.request("e1")
    core.wait(2)
    core.finish("e1")
    assert saved(core.acknowledge("progress/e1")) == []
    core.disconnect()
    assert responses(core.connect()) == [{"status": "SUCCEEDED"}]


# -- a journal that could be opened at last


def test_what_an_earlier_run_left_is_taken_up_when_its_journal_can_be_opened():
    core = Core(registry(b={"on_restart": "rerun"}))
    core.request("ours")
    core.finish("ours")
    core.acknowledge("ours")
    found = History()
    found.boot_id = "boot-1"
    for record in (
        Accepted("cut short", "a", b"{}", UNIX, 600.0, core.now + 500),
        Started("cut short", 1),
        Accepted("again", "b", b"{}", UNIX, 600.0, core.now + 500),
        Answered("unheard", UNIX, b'{"status":"SUCCEEDED"}'),
    ):
        found.apply(record)
    effects = core.take(core.session.recover("boot-1", core.now, core.wall, trusted=True, found=found))
    assert verdicts(effects, "cut short") == ["FAILED INTERRUPTED"]
    assert verdicts(effects, "unheard") == ["SUCCEEDED"]
    assert started(effects) == ["again"]
    assert started(core.request("ours")) == [], "what this run has done is known still"
    assert found.get("ours") is not None
    assert saved(core.request("new")) == [("Accepted", True), ("Started", False)]
    assert found.get("new") is not None


def test_what_was_refused_for_want_of_a_journal_keeps_the_verdict_that_was_given():
    core = Core()
    core.request("e1")
    core.take(core.session.unsaved(Accepted("e1", "a", b"{}", UNIX, 60.0, None), core.now, core.wall))
    found = History()
    found.apply(Accepted("e1", "a", b"{}", UNIX, 60.0, core.now + 50))
    effects = core.take(core.session.recover("boot-1", core.now, core.wall, trusted=True, found=found))
    assert started(effects) == []
    core.acknowledge("e1")
    assert verdicts(core.request("e1"), "e1") == ["REJECTED JOURNAL_UNAVAILABLE"]


# -- the connection


def test_unacknowledged_responses_survive_a_lost_connection():
    core = Core()
    core.request("e1")
    core.finish("e1", succeeded(1))
    core.disconnect()
    assert responses(core.connect()) == [{"status": "SUCCEEDED", "result": 1}]
    core.acknowledge("e1")
    core.disconnect()
    assert responses(core.connect()) == []


def test_what_ends_while_there_is_no_connection_is_said_later():
    core = Core()
    core.request("e1")
    core.disconnect()
    assert responses(core.finish("e1")) == []
    assert len(responses(core.connect())) == 1


def test_the_announcement_names_everything():
    core = Core(registry(a={"timeout": 5, "exclusive": "g"}))
    announced = decode_announcement(core.session.announcement().payload)
    assert [a.name for a in announced.actions] == ["b", "a"]
    assert announced.actions[1].policy == {"timeout": 5, "exclusive": "g"}
    assert core.session.announcement().retain
    assert core.session.withdrawal().payload == b""


# -- a journal that cannot be written


def test_what_cannot_be_recorded_is_not_run():
    core = Core()
    record = core.request("e1")[0].record
    effects = core.take(core.session.unsaved(record, core.now, core.wall))
    assert verdicts(effects) == ["REJECTED JOURNAL_UNAVAILABLE"]
    assert started(core.request("e2")) == ["e2"], "its place is free again"


def test_an_answer_that_cannot_be_recorded_is_given_all_the_same():
    core = Core()
    assert core.session.unsaved(Answered("e1", 0.0, b"{}"), core.now, core.wall) == []


# -- stopping


def test_stopping_interrupts_handlers_and_answers_for_those_that_do_not_end():
    core = Core()
    core.request("e1", "a")
    core.request("e2", "b")
    assert interrupted(core.take(core.session.stop())) == ["e1", "e2"]
    assert verdicts(core.finish("e1", canceled("asked"))) == ["FAILED INTERRUPTED"]
    assert core.session.busy
    assert verdicts(core.take(core.session.abandon())) == ["FAILED INTERRUPTED"]
    assert not core.session.busy
    assert verdicts(core.finish("e2")) == []


def test_stopping_leaves_what_may_be_begun_again_to_the_next_start():
    core = Core(registry(a={"on_restart": "rerun"}))
    core.request("e1")
    core.take(core.session.stop())
    assert verdicts(core.finish("e1", canceled("asked"))) == []
    assert started(restarted(core).effects) == ["e1"]


def test_stopping_starts_nothing_more_and_keeps_what_waits():
    core = Core()
    core.request("e1")
    core.request("e2")
    core.take(core.session.stop())
    assert started(core.finish("e1")) == []
    assert started(restarted(core).effects) == ["e2"]


# -- calls that never end


def hung(count=2, **policies):
    """A device whose every place is held by a call that has timed out."""
    names = [f"h{number}" for number in range(count)]
    actions = registry(**{name: {"timeout": 1} for name in names}, **policies)
    core = Core(actions, limits=Limits(running=count))
    for name in names:
        core.request(f"e-{name}", name)
    core.wait(2)
    return core


def test_a_device_that_hangs_refuses_at_once_and_says_why():
    core = hung()
    assert core.session.hung
    assert "every place is held by a call that timed out; only reads are answered" in notes(core.effects)
    (answer,) = responses(core.request("e1"))
    assert answer["statusReason"] == {
        "reasonCode": "BUSY",
        "reasonDescription": "2 calls that timed out still run",
    }


def test_a_device_that_hangs_answers_reads():
    core = hung(read={"durable": False})
    assert started(core.request("e1", "read")) == ["e1"]
    core.finish("e1")
    core.finish("e-h0")
    assert not core.session.hung
    assert started(core.request("e2", "a")) == ["e2"]


def test_what_waited_for_a_device_that_hangs_is_told_why():
    core = Core(registry(h={"timeout": 5}), limits=Limits(running=1))
    core.request("e1", "h")
    core.request("e2", "a", ttl=6)
    core.wait(10)
    assert verdicts(core.effects, "e2") == ["REJECTED BUSY"]


def test_a_group_whose_call_hangs_refuses_at_once():
    core = Core(registry(hang={"timeout": 1, "exclusive": "bus"}, ok={"exclusive": "bus"}))
    core.request("e1", "hang")
    core.wait(2)
    (answer,) = responses(core.request("e2", "ok"))
    assert "'bus' has timed out" in answer["statusReason"]["reasonDescription"]
    core.finish("e1")
    assert started(core.request("e3", "ok")) == ["e3"]
