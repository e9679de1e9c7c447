"""The service against a simple model: whatever happens in whatever order, both agree.

The model keeps one list of records and works everything out anew from it. Commits may be
held back, fail, or be cut short by a crash, after which a new service goes on from what was kept.
"""

import json
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from thingctl_broker.commands.delivery import Deliveries
from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable, Query
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_broker.errors import AlreadyEnded, NotAccepting, QueueFull, TableFull
from thingctl_broker.storage.sqlite.execution_rows import RowReader, to_row
from thingctl_broker.testing import InMemoryLink, ManualClock
from thingctl_protocol.messages import decode_request

THINGS = ("a", "b")
GRACE, QUEUE_MAX, CAPACITY = 5, 4, 10
ENDS = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED"}
SAID = ["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "CANCELED"]


class ManualJournal:
    """Keeps rows as the real one does, when ``commit`` is called; ``rows`` survive a crash."""

    def __init__(self, rows=()):
        self.rows = dict(rows)
        self.accepting = True
        self.dirty = {}
        self.forgotten = set()
        self.waiting = []

    def record(self, execution):
        self.dirty[execution.execution_id] = execution

    def forget(self, execution_id):
        self.dirty.pop(execution_id, None)
        self.forgotten.add(execution_id)

    def then(self, kept, lost=None):
        self.waiting.append((kept, lost))

    def write(self):
        """All that a crash leaves behind of a commit."""
        for key, execution in self.dirty.items():
            self.rows[key] = to_row(execution, new=True)
        for execution_id in self.forgotten:
            self.rows.pop(execution_id, None)
        self.dirty, self.forgotten = {}, set()

    def commit(self):
        self.write()
        self.accepting = True
        waiting, self.waiting = self.waiting, []
        for kept, _ in waiting:
            kept()

    def fail(self):
        self.accepting = False
        waiting, self.waiting = self.waiting, []
        self.waiting = [entry for entry in waiting if entry[1] is None]
        for _, lost in waiting:
            if lost is not None:
                lost()

    def recover(self, now, at):
        reader = RowReader(now, at)
        return [reader.read(self.rows[execution_id]) for execution_id in sorted(self.rows)]


@dataclass
class Record:
    """What the model knows of one execution."""

    id: str
    thing: str
    deadline: float
    ttl: int
    ends_at: float  # the deadline by the wall clock, for after a crash
    status: str = "SENT"
    by_device: bool = False
    place: str = "waiting"  # then "out" (published, unacknowledged) and "gone"
    stopping: int = 0  # how many cancels came before this one, and this one
    attempts: int = 0
    written: bool = False  # to a connection: before that no thing can know of it
    delivered: bool = False
    started: bool = False
    cancel_deadline: float | None = None
    cancel_ends_at: float | None = None
    ended_at: float = 0.0
    kept: bool = False
    late: str | None = None
    conflicts: int = 0

    @property
    def live(self):
        return self.status not in ENDS

    @property
    def published(self):
        return self.attempts > 0

    @property
    def due(self):
        return self.deadline if self.cancel_deadline is None else min(self.deadline, self.cancel_deadline)

    @property
    def delivery(self):
        if self.started:
            return "STARTED"
        if self.delivered:
            return "DELIVERED"
        return "PUBLISHED" if self.published else "QUEUED"


@dataclass
class Model:
    """The rules, told as plainly as possible. ``sent``: what must have gone out."""

    window: int
    now: float
    at: float
    records: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    here: set = field(default_factory=set)
    puback: bool = True
    sent: list = field(default_factory=list)
    pending: list = field(default_factory=list)  # what is done at the next commit

    def of(self, thing, place):
        return [record for record in self.records if record.thing == thing and record.place == place]

    def publish(self, record):
        if self.now >= record.deadline:
            return
        again = record.published
        record.attempts += 1
        attempt = record.attempts
        self.pending.append(lambda: self.write(record, attempt, again))

    def write(self, record, attempt, again):
        here = record.thing in self.here
        if not record.live or record not in self.records or record.attempts != attempt:
            return
        if record.cancel_deadline is not None:
            if attempt == 1:
                record.attempts = 0
                self.end(record, "CANCELED")
        elif here and self.now < record.deadline:
            self.sent.append(("request", record.id, again))
            record.written = True
            if not self.puback:
                record.place = "gone"
                self.pump(record.thing)

    def pump(self, thing):
        while thing in self.here and self.of(thing, "waiting") and len(self.of(thing, "out")) < self.window:
            record = self.of(thing, "waiting")[0]
            record.place = "out"
            self.publish(record)

    def subscribe(self, thing):
        self.here.add(thing)
        mine = [record for record in self.records if record.thing == thing and record.live]
        for record in sorted(mine, key=lambda record: record.stopping):
            if record.stopping:
                self.pending.append(partial(self.write_cancel, record))
        for record in self.of(thing, "out"):
            self.publish(record)
        self.pump(thing)

    def cancel(self, record):
        record.stopping = 1 + max(other.stopping for other in self.records)
        record.cancel_deadline, record.cancel_ends_at = self.now + GRACE, self.at + GRACE
        record.place = "gone"
        self.pump(record.thing)
        self.pending.append(partial(self.write_cancel, record))

    def write_cancel(self, record):
        if record.live:
            self.sent.append(("cancel", record.id))

    def end(self, record, status):
        record.status, record.ended_at = status, self.at
        record.place = "gone"
        self.ended.append(record)
        self.pump(record.thing)

    def fail(self):
        for record in [record for record in self.records if not record.kept]:
            self.records.remove(record)
            if record in self.ended:
                self.ended.remove(record)
            self.pump(record.thing)

    def snapshot(self):
        return [replace(record, kept=True) for record in self.records]

    def recover(self, snapshot):
        self.records = [replace(record) for record in snapshot]
        ended = [record for record in self.records if not record.live]
        self.ended = sorted(ended, key=lambda record: record.ended_at)
        self.here, self.pending = set(), []
        for number, record in enumerate(self.records):
            record.deadline = self.now + min(record.ttl, record.ends_at - self.at)
            record.stopping = number + 1 if record.cancel_ends_at is not None else 0
            if record.stopping:
                record.cancel_deadline = self.now + min(GRACE, record.cancel_ends_at - self.at)
            if not record.live or record.stopping or record.delivered or record.started:
                record.place = "gone"
            else:
                record.place = "out" if record.published else "waiting"

    def expire(self):
        due = [record for record in self.records if record.live and record.due <= self.now]
        for record in sorted(due, key=lambda record: (record.due, record.id)):
            self.end(record, "TIMED_OUT" if record.due == record.deadline else "CANCELED")

    def respond(self, record, said):
        if record.live:
            record.started = True
            if said in ENDS:
                record.by_device = True
                self.end(record, said)
            else:
                record.status, record.place = said, "gone"
                self.pump(record.thing)
        elif record.status == said and record.by_device:
            pass
        elif record.status not in {"TIMED_OUT", "CANCELED"}:
            record.conflicts += said in ENDS
        elif record.late in {None, "IN_PROGRESS"}:
            record.late, record.started = said, True
        else:
            record.conflicts += said in ENDS and said != record.late


class WatchedLink(InMemoryLink):
    """Holds every publication against the rule that only the living are published."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine
        self.sent = []

    def publish_request(self, thing, execution_id, payload, *, again):
        execution = self.machine.service.get(execution_id)
        assert not execution.is_terminal
        assert self.machine.clock.monotonic() < execution.deadline
        assert decode_request(payload).ttl == execution.ttl
        assert execution.thing == thing
        self.sent.append(("request", execution_id, again))
        return super().publish_request(thing, execution_id, payload, again=again)

    def publish_cancel(self, thing, execution_id):
        self.sent.append(("cancel", execution_id))


class ServiceMachine(RuleBasedStateMachine):
    @initialize(window=st.integers(1, 3), holding=st.booleans())
    def begin(self, window, holding):
        self.clock, self.journal, self.link = ManualClock(), ManualJournal(), WatchedLink(self)
        self.model = Model(window, self.clock.monotonic(), self.clock.unix())
        self.start()
        self.holding = holding
        self.kept_by_model = []
        self.owed = self.kept = 0
        self.evicted = []
        self.verdicts = {}  # what things were told is kept

    def start(self):
        self.service = CommandService(
            clock=self.clock,
            link=self.link,
            journal=self.journal,
            table=ExecutionTable(CAPACITY),
            deliveries=Deliveries(self.model.window, QUEUE_MAX),
            settings=ServiceSettings(cancel_grace=GRACE),
        )
        self.service.restore(self.journal.recover(self.clock.monotonic(), self.clock.unix()))
        for thing in THINGS:
            self.service.connected(thing, thing)

    def settle(self):
        while not self.holding and (self.journal.waiting or self.model.pending):
            self.commit()

    def pick(self, data, records):
        return data.draw(st.sampled_from(records))

    def published(self):
        return [record for record in self.model.records if record.written]

    def live(self):
        return [record for record in self.model.records if record.live]

    @rule()
    def commit(self):
        self.keep()
        self.journal.commit()
        pending, self.model.pending = self.model.pending, []
        for act in pending:
            act()

    def keep(self):
        self.kept_by_model = self.model.snapshot()
        for record in self.model.records:
            record.kept = True

    @rule()
    def commit_fails(self):
        self.holding = True  # until it is committed by itself
        self.journal.fail()
        self.model.fail()

    @rule(written=st.booleans())
    def crash_and_recover(self, written):
        if written:  # the last batch reached the disk, and nobody heard of it
            self.journal.write()
            self.keep()
        self.journal = ManualJournal(self.journal.rows)
        self.start()
        known = {record.id for record in self.kept_by_model}
        self.evicted = [record for record in self.evicted if record.id not in known]
        self.model.recover(self.kept_by_model)

    @rule(thing=st.sampled_from(THINGS), ttl=st.integers(1, 40))
    def send(self, thing, ttl):
        records = self.model.records
        if not self.journal.accepting:
            with pytest.raises(NotAccepting):
                self.service.send(thing, "act", ttl=ttl)
            return
        full = len(records) == CAPACITY
        if len(self.model.of(thing, "waiting")) >= QUEUE_MAX:
            with pytest.raises(QueueFull):
                self.service.send(thing, "act", ttl=ttl)
            return
        if full and not self.model.ended:
            with pytest.raises(TableFull):
                self.service.send(thing, "act", ttl=ttl)
            return
        if full:
            leaving = self.model.ended.pop(0)
            records.remove(leaving)
            self.evicted.append(leaving)
        execution = self.service.send(thing, "act", ttl=ttl)
        record = Record(execution.execution_id, thing, self.model.now + ttl, ttl, self.model.at + ttl)
        records.append(record)
        self.model.pump(thing)
        self.settle()

    @rule(thing=st.sampled_from(THINGS))
    def connect(self, thing):
        self.service.connected(thing, "again")

    @rule(thing=st.sampled_from(THINGS), puback=st.booleans())
    def subscribe(self, thing, puback):
        self.link.acknowledging = self.model.puback = puback
        self.service.reachable(thing)
        self.model.subscribe(thing)
        self.settle()

    @rule(thing=st.sampled_from(THINGS), gone=st.booleans())
    def disconnect_or_unsubscribe(self, thing, gone):
        (self.service.disconnected if gone else self.service.unreachable)(thing)
        self.model.here.discard(thing)

    @precondition(lambda self: self.published())
    @rule(data=st.data())
    def puback(self, data):
        record = self.pick(data, self.published())
        self.service.acknowledged(record.thing, record.id)
        record.delivered, record.place = True, "gone"
        self.model.pump(record.thing)
        self.settle()

    @precondition(lambda self: self.published())
    @rule(data=st.data(), said=st.sampled_from(SAID))
    def respond(self, data, said):
        record = self.pick(data, self.published())
        self.hear(record.thing, record.id, {"status": said})
        self.model.respond(record, said)
        self.model.pending.append(partial(self.expect_kept, record, record.status))
        self.settle()

    @precondition(lambda self: self.evicted or self.model.records)
    @rule(data=st.data(), fault=st.sampled_from(["evicted", "payload", "thing"]))
    def respond_wrongly(self, data, fault):
        if fault == "evicted" and self.evicted:
            record = self.pick(data, self.evicted)
            self.hear(record.thing, record.id, {"status": "SUCCEEDED"})
        elif self.model.records:
            record = self.pick(data, self.model.records)
            if fault == "thing":
                other = THINGS[record.thing == THINGS[0]]
                self.hear(other, record.id, {"status": "SUCCEEDED"})
            else:
                self.hear(record.thing, record.id, {"status": "TIMED_OUT"})
        else:
            return
        self.owed += 1

    def hear(self, thing, execution_id, response):
        self.service.respond(thing, execution_id, json.dumps(response).encode(), self.note_kept)

    def note_kept(self):
        self.kept += 1

    def expect_kept(self, record, status):
        self.owed += 1
        if status in ENDS:
            self.verdicts[record.id] = status

    @precondition(lambda self: self.model.records)
    @rule(data=st.data())
    def cancel(self, data):
        record = self.pick(data, self.model.records)
        if not record.live:
            with pytest.raises(AlreadyEnded):
                self.service.cancel(record.id)
            return
        self.service.cancel(record.id)
        if not record.published:
            self.model.end(record, "CANCELED")
        elif record.cancel_deadline is None:
            self.model.cancel(record)
        self.settle()

    @rule(seconds=st.integers(0, 15), sweep=st.booleans())
    def time_passes(self, seconds, sweep):
        self.clock.advance(seconds)
        self.model.now += seconds
        self.model.at += seconds
        if sweep:
            self.service.expire()
            self.model.expire()
            self.settle()

    @rule(seconds=st.sampled_from([-86400, -1, 3600]))
    def the_wall_clock_jumps(self, seconds):
        self.clock.jump(seconds)
        self.model.at += seconds

    @invariant()
    def what_went_out_is_what_should_have(self):
        assert self.link.sent == self.model.sent

    @invariant()
    def what_was_acknowledged_to_the_things_is_what_was_kept(self):
        assert self.kept == self.owed

    @invariant()
    def a_verdict_that_a_thing_was_told_is_kept_never_changes(self):
        for execution_id, status in self.verdicts.items():
            if execution_id not in {record.id for record in self.evicted}:
                assert self.service.get(execution_id).status == status

    @invariant()
    def what_has_left_is_never_called_safe_to_send_again(self):
        for what, execution_id, *_ in self.link.sent:
            execution = self.service.table.get(execution_id)
            assert what == "cancel" or execution is None or not execution.retry_safe

    @invariant()
    def every_execution_agrees(self):
        for record in self.model.records:
            execution = self.service.get(record.id)
            assert execution.status == record.status
            assert execution.delivery == record.delivery
            assert execution.retry_safe == (not record.published)
            assert (execution.late and execution.late.status) == record.late
            assert execution.conflicts == record.conflicts
            assert (execution.ended_at is None) == record.live

    @invariant()
    def the_list_is_what_there_is(self):
        listed = self.service.list(Query(), 100).executions
        assert [e.execution_id for e in listed] == [r.id for r in reversed(self.model.records)]

    @invariant()
    def the_next_deadline_is_not_overslept(self):
        wait = self.service.seconds_to_next_deadline()
        if self.live():
            assert wait <= max(0, min(record.due for record in self.live()) - self.model.now)


TestService = ServiceMachine.TestCase
