"""The session, whatever comes in whatever order."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core import Core, registry
from thingctl_agent.core.effects import PublishEffect, Save, Start
from thingctl_agent.core.history import Answered, History
from thingctl_agent.core.outcome import canceled, failed, succeeded
from thingctl_agent.core.pending import Limits


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
        self.at_work: list[str] = []

    def look(self) -> None:
        new, self.seen = self.core.effects[self.seen :], len(self.core.effects)
        for effect in new:
            if isinstance(effect, Start):
                self.starts.append(effect.execution_id)
                self.running.add(effect.execution_id)
            elif isinstance(effect, Save) and isinstance(effect.record, Answered):
                assert effect.record.execution_id not in self.ended, "a terminal status never changes"
                self.ended[effect.record.execution_id] = json.loads(effect.record.payload)["status"]
            elif isinstance(effect, PublishEffect) and b"IN_PROGRESS" in effect.payload:
                execution_id = effect.topic.split("/")[-2]
                assert execution_id not in self.ended, "nothing follows a terminal status"
                self.at_work.append(execution_id)

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
    def only_what_was_started_is_said_to_be_at_work(self):
        assert set(self.at_work) <= set(self.starts)

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
