"""What the agent decides, and in which order."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core import Core, interrupted, notes, registry, responses, saved, started, verdicts
from thingctl_agent.calls import HOLD, Limits
from thingctl_agent.effects import Publish, Save, Start
from thingctl_agent.history import Accepted, Answered, History, Started
from thingctl_agent.outcome import canceled, failed, succeeded
from thingctl_agent.session import REBOOT_WITHIN
from thingctl_protocol.messages import decode_announcement


def kinds(effects):
    return [type(e).__name__ for e in effects if isinstance(e, Save | Start | Publish)]


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
    assert kinds(effects) == ["Save", "Publish"]
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


def test_waiting_params_are_bounded_in_bytes():
    core = Core(limits=Limits(running=1, waiting=100, waiting_bytes=10))
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
    assert core.wait(19) == []
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


# -- restarts


def restarted(core, actions=None, *, boot_id="boot-1", trusted=True, wall=True):
    """What a new agent does with the records of an old one."""
    history = History()
    history.boot_id = "boot-1"
    for record in core.records:
        history.apply(record)
    new = Core(actions or core.session._registry, history=history, connected=False, wall=wall)
    new.now = core.now
    new.recover(boot_id, trusted=trusted)
    return new


def test_an_unacknowledged_response_is_said_after_a_restart():
    core = Core(connected=False)
    core.request("e1")
    core.finish("e1", succeeded(5))
    assert responses(restarted(core).connect()) == [{"status": "SUCCEEDED", "result": 5}]


def test_a_call_that_was_interrupted_fails_and_is_not_run_again():
    core = Core()
    core.request("e1")
    new = restarted(core)
    assert started(new.effects) == []
    assert verdicts(new.connect()) == ["FAILED INTERRUPTED"]
    assert started(new.request("e1")) == []


def test_a_call_that_had_not_begun_runs_after_a_restart():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b")
    assert started(restarted(core).effects) == ["e2"]


def test_a_call_that_may_have_begun_does_not_when_the_journal_lost_something():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b")
    new = restarted(core, trusted=False)
    assert started(new.effects) == []
    assert verdicts(new.connect()) == ["FAILED INTERRUPTED", "FAILED INTERRUPTED"]


def test_what_expired_during_the_restart_is_not_run():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b", ttl=10)
    core.now += 11
    new = restarted(core)
    assert verdicts(new.connect(), "e2") == ["REJECTED EXPIRED"]


def test_after_a_reboot_the_age_is_judged_anew():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b", ttl=10)
    new = restarted(core, boot_id="boot-2", wall=False)
    assert started(new.effects) == [], "the time since boot started again: the old deadline means nothing"
    new.connect()
    new.now += 1
    assert started(new.broker_time()) == ["e2"]


@pytest.mark.parametrize("on_restart", ["rerun", "resume"])
def test_a_call_that_may_be_begun_again_is_but_not_for_ever(on_restart):
    core = Core(registry(a={"on_restart": on_restart}))
    core.request("e1", ttl=1000)
    core.take(core.session.keep("e1", b'{"step":1}'))
    for attempt in (2, 3):
        new = restarted(core)
        start = next(e for e in new.effects if isinstance(e, Start))
        assert (start.attempt, start.saved) == (attempt, b'{"step":1}')
        core.records += new.records
    new = restarted(core)
    assert started(new.effects) == []
    assert verdicts(new.connect()) == ["FAILED INTERRUPTED"]


def test_a_rerun_that_has_expired_meanwhile_fails():
    core = Core(registry(a={"on_restart": "rerun"}))
    core.request("e1", ttl=10)
    core.now += 11
    assert verdicts(restarted(core).connect()) == ["FAILED INTERRUPTED"]


def test_an_action_that_is_gone_after_a_restart_fails():
    core = Core(registry(gone={"on_restart": "rerun"}))
    core.request("e1", "gone")
    assert verdicts(restarted(core, registry()).connect()) == ["FAILED INTERRUPTED"]


def test_an_execution_whose_first_record_is_lost_fails():
    core = Core()
    core.records = [Started("e1", 1)]
    assert verdicts(restarted(core, trusted=False).connect()) == ["FAILED INTERRUPTED"]


# -- reboots


def rebooting():
    core = Core(registry(boot={"reboots": True}))
    core.request("e1", "boot", ttl=600)
    return core


def test_the_started_record_of_a_reboot_is_flushed():
    assert saved(rebooting().effects) == [("Accepted", True), ("Started", True)]


def test_a_reboot_succeeds_once_the_boot_id_has_changed():
    core = rebooting()
    assert verdicts(core.finish("e1", succeeded({"ok": 1}))) == [], "not yet"
    assert responses(restarted(core, boot_id="boot-2").connect()) == [
        {"status": "SUCCEEDED", "result": {"ok": 1}}
    ]


def test_a_reboot_fails_when_only_the_agent_restarted():
    core = rebooting()
    core.finish("e1")
    new = restarted(core)
    assert verdicts(new.connect()) == ["FAILED NOT_REBOOTED"]
    assert started(new.request("e1", "boot")) == [], "no loop"


def test_a_device_that_went_down_inside_the_handler_has_rebooted():
    assert verdicts(restarted(rebooting(), boot_id="boot-2").connect()) == ["SUCCEEDED"]
    assert verdicts(restarted(rebooting(), boot_id="boot-2", trusted=False).connect()) == ["SUCCEEDED"]
    assert verdicts(restarted(rebooting()).connect()) == ["FAILED NOT_REBOOTED"]


def test_a_reboot_that_does_not_come_fails():
    core = rebooting()
    core.finish("e1")
    assert verdicts(core.wait(REBOOT_WITHIN + 1)) == ["FAILED NOT_REBOOTED"]


def test_a_reboot_that_failed_says_so():
    core = rebooting()
    assert verdicts(core.finish("e1", failed("NO", "it will not"))) == ["FAILED NO"]


def test_nothing_starts_while_the_device_goes_down():
    core = rebooting()
    core.finish("e1")
    core.request("e2", "a", ttl=1000)
    assert started(core.effects) == ["e1"]
    assert started(restarted(core, boot_id="boot-2").effects) == ["e2"]


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


# -- every order of events


class Everything(RuleBasedStateMachine):
    """Whatever comes in whatever order: each handler starts once, each execution ends once."""

    def __init__(self) -> None:
        super().__init__()
        self.actions = registry(
            a={"concurrency": 2}, b={"timeout": 5, "exclusive": "g"}, c={"exclusive": "g", "rate": "3/min"}
        )
        self.core = Core(self.actions, limits=Limits(running=2, waiting=3))
        self.seen = 0
        self.asked: set[str] = set()
        self.running: set[str] = set()
        self.ended: dict[str, str] = {}
        self.starts: list[str] = []

    def look(self) -> None:
        new, self.seen = self.core.effects[self.seen :], len(self.core.effects)
        for effect in new:
            if isinstance(effect, Start):
                self.starts.append(effect.execution_id)
                self.running.add(effect.execution_id)
            elif isinstance(effect, Save) and isinstance(effect.record, Answered):
                assert effect.record.execution_id not in self.ended, "a terminal status never changes"
                self.ended[effect.record.execution_id] = json.loads(effect.record.payload)["status"]

    @rule(i=st.integers(0, 8), action=st.sampled_from("abc"), ttl=st.integers(1, 20), age=st.integers(0, 5))
    def request(self, i, action, ttl, age):
        self.asked.add(f"e{i}")
        self.core.request(f"e{i}", action, ttl=ttl, age=age)
        self.look()

    @rule(i=st.integers(0, 8))
    def cancel(self, i):
        self.core.cancel(f"e{i}")
        self.look()

    @rule(i=st.integers(0, 8))
    def acknowledge(self, i):
        self.core.acknowledge(f"e{i}")
        self.look()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from([succeeded(1), failed("X", "x"), canceled("c")]))
    def finish(self, data, end):
        execution_id = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(execution_id)
        self.core.finish(execution_id, end)
        self.look()

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 30.0]))
    def wait(self, seconds):
        self.core.wait(seconds)
        self.look()

    @rule(connected=st.booleans())
    def connection(self, connected):
        self.core.connect() if connected else self.core.disconnect()
        self.look()

    @rule(reboot=st.booleans(), trusted=st.booleans())
    def crash(self, reboot, trusted):
        records = self.core.records
        history = History()
        history.boot_id = "boot-1"
        for record in records:
            history.apply(record)
        now = self.core.now
        self.core = Core(self.actions, history=history, connected=False, limits=Limits(running=2, waiting=3))
        self.core.now = now
        self.core.records = list(records)
        self.seen = 0
        self.running.clear()
        self.core.recover("boot-2" if reboot else "boot-1", trusted=trusted)
        self.core.connect()
        self.look()

    @invariant()
    def each_handler_started_at_most_once(self):
        assert len(self.starts) == len(set(self.starts))

    @invariant()
    def nobody_is_forgotten(self):
        waiting = set(self.core.session._waiting)
        for execution_id in self.asked:
            assert execution_id in self.ended or execution_id in self.running or execution_id in waiting

    @invariant()
    def the_same_journal_gives_the_same_history(self):
        again = History()
        for record in self.core.history.snapshot():
            again.apply(record)
        assert [i for i, _ in again.unanswered()] == [i for i, _ in self.core.history.unanswered()]
        assert again.unacknowledged() == self.core.history.unacknowledged()

    def teardown(self):
        for execution_id in sorted(self.running):
            self.core.finish(execution_id)
        self.look()
        while self.core.session._running or self.core.session._waiting:
            self.running.clear()
            for execution_id in list(self.core.session._running):
                self.core.finish(execution_id)
            self.core.wait(1000)
            self.look()
        assert set(self.ended) == self.asked


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_accepted_record_holds_what_a_restart_needs():
    core = Core()
    core.request("e1", ttl=60, age=10)
    record = core.records[0]
    assert isinstance(record, Accepted)
    assert (record.action, record.params, record.ttl, record.deadline) == ("a", b"{}", 60, core.now + 50)
