"""The use cases, on the fakes that ship: no broker, no socket, no waiting."""

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from broker_support import AT, NOW, HeldJournal, make_execution, say
from thingctl_broker.commands.delivery import Deliveries
from thingctl_broker.commands.events import Change
from thingctl_broker.commands.idempotency import fingerprint
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable, Query
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_broker.errors import (
    AlreadyEnded,
    IdempotencyConflict,
    InvalidCommand,
    NotAccepting,
    QueueFull,
    ServiceError,
    TableFull,
    UnknownExecution,
    UnknownThing,
)
from thingctl_broker.storage.sqlite.journal import SqliteJournal
from thingctl_broker.testing import InMemoryLink, ManualClock, service_with_fakes
from thingctl_broker.things.registry import ThingRegistry
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.limits import PAYLOAD_MAX, TTL_MAX
from thingctl_protocol.messages import decode_request
from thingctl_protocol.statuses import Delivery, Status

LAMP = "lamp"
SUCCEEDED = b'{"status":"SUCCEEDED","result":{"on":true}}'


class Bench:
    """A service with its fakes and one thing; ``kept`` counts what was acknowledged to it."""

    def __init__(self, *, journal=None, **parts):
        self.journal = NullJournal() if journal is None else journal
        self.link, self.clock = InMemoryLink(), ManualClock()
        self.service = CommandService(clock=self.clock, link=self.link, journal=self.journal, **parts)
        self.service.connected(LAMP, "client")
        self.kept = 0
        self.heard = []
        self.service.events.subscribe(lambda execution, change: self.heard.append(change))

    def send(self, **fields):
        return self.service.send(LAMP, "turnOn", **fields)

    def say(self, execution, payload=SUCCEEDED, thing=LAMP):
        execution_id = getattr(execution, "execution_id", execution)
        self.service.respond(thing, execution_id, payload, self._note_kept)

    def _note_kept(self):
        self.kept += 1

    @property
    def published(self):
        return [(request.execution_id, request.again) for request in self.link.published]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def online(bench):
    bench.service.reachable(LAMP)
    return bench


# Send.


def test_a_command_goes_out_at_once_as_the_request_that_it_is(online):
    execution = online.service.send(LAMP, "set", b'{"value":24}', 30, requested_by="ann")
    assert online.published == [(execution.execution_id, False)]
    request = decode_request(online.link.published[0].payload)
    assert (request.action, bytes(request.params), request.ttl) == ("set", b'{"value":24}', 30)
    assert (request.command_id, request.timestamp) == (execution.command_id, execution.created_at)
    assert (execution.delivery, execution.requested_by) == (Delivery.PUBLISHED, "ann")
    assert online.heard == [Change.CREATED, Change.PUBLISHED]
    assert online.service.counters["executions.created"] == 1


def test_ids_are_uuid7_and_in_the_order_of_creation_though_the_clock_steps_back(bench):
    executions = []
    for _ in range(5):
        executions.append(bench.send())
        bench.clock.jump(-3600)
    ids = [execution.execution_id for execution in executions]
    assert ids == sorted(ids)
    assert {uuid.UUID(i).version for i in ids} == {7}
    assert uuid.UUID(ids[0]).int >> 80 == executions[0].created_at * 1000
    assert [e.execution_id for e in bench.service.list(Query(), 10).executions] == ids[::-1]


def test_without_a_ttl_the_default_counts():
    bench = Bench(settings=ServiceSettings(ttl_default=90))
    execution = bench.send()
    assert (execution.ttl, execution.deadline) == (90, bench.clock.monotonic() + 90)


@pytest.mark.parametrize("ttl", [1, TTL_MAX])
def test_a_ttl_at_its_bounds_is_taken(bench, ttl):
    assert bench.send(ttl=ttl).ttl == ttl


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"ttl": 0}, "/ttl"),
        ({"ttl": -1}, "/ttl"),
        ({"ttl": TTL_MAX + 1}, "/ttl"),
        ({"thing": "a/b"}, "/thingId"),
        ({"thing": ""}, "/thingId"),
        ({"thing": "+"}, "/thingId"),
        ({"action": ""}, "/action"),
        ({"action": "a b"}, "/action"),
        ({"action": "x\ud800"}, "/action"),
        ({"params": b""}, "/params"),
        ({"params": b"[]"}, "/params"),
        ({"params": b'{"a":}'}, "/params"),
        ({"params": b'{"a":"\xff"}'}, "/params"),
        ({"params": b'{"a":' * 70 + b"1" + b"}" * 70}, "/params"),
        ({"params": b'{"a":"%b"}' % (b"x" * PAYLOAD_MAX)}, "/params"),
    ],
)
def test_a_wrong_command_is_refused_with_a_pointer_and_nothing_happens(online, fields, pointer):
    with pytest.raises(InvalidCommand) as caught:
        online.service.send(**({"thing": LAMP, "action": "turnOn"} | fields))
    assert caught.value.pointer == pointer
    assert caught.value.text
    assert (len(online.service.table), online.published, online.heard) == (0, [], [])


def test_a_command_for_a_thing_that_nobody_knows_is_refused(bench):
    with pytest.raises(UnknownThing, match="'toaster'"):
        bench.service.send("toaster", "turnOn")
    assert len(bench.service.table) == 0


@pytest.mark.parametrize(("reachable", "retry_after"), [(False, 30), (True, 1)])
def test_a_full_queue_is_refused_with_a_time_to_try_again(reachable, retry_after):
    bench = Bench(deliveries=Deliveries(window=1, queue_max=2))
    if reachable:
        bench.service.reachable(LAMP)
        bench.send()
    bench.send()
    bench.send()
    before = len(bench.service.table)
    with pytest.raises(QueueFull, match="2 requests wait") as caught:
        bench.send()
    assert caught.value.retry_after == retry_after
    assert len(bench.service.table) == before


def test_a_table_full_of_live_executions_is_refused():
    bench = Bench(table=ExecutionTable(capacity=1))
    bench.send()
    with pytest.raises(TableFull):
        bench.send()
    assert bench.heard == [Change.CREATED]
    assert bench.service.counters["executions.created"] == 1


def test_what_leaves_the_table_for_a_new_one_is_forgotten_by_the_journal():
    bench = Bench(table=ExecutionTable(capacity=1), journal=HeldJournal())
    first = bench.send()
    bench.service.cancel(first.execution_id)
    bench.send()
    assert bench.journal.forgotten == [first.execution_id]


def test_every_refusal_is_a_service_error_with_a_sentence():
    for error in (InvalidCommand("t", "/p"), UnknownThing("t"), QueueFull("t", 1), TableFull("t")):
        assert isinstance(error, ServiceError)
        assert error.text == str(error) == "t"


# Delivery.


def test_what_waits_goes_out_in_order_when_the_thing_subscribes(bench):
    executions = [bench.send() for _ in range(5)]
    assert {execution.delivery for execution in executions} == {Delivery.QUEUED}
    bench.service.reachable(LAMP)
    assert bench.published == [(execution.execution_id, False) for execution in executions]


def test_the_unacknowledged_go_out_again_on_reconnect_and_the_acknowledged_do_not(online):
    first, second = online.send(), online.send()
    online.service.acknowledged(LAMP, first.execution_id)
    assert first.delivery is Delivery.DELIVERED
    online.service.disconnected(LAMP)
    online.link.published.clear()
    online.service.reachable(LAMP)
    assert online.published == [(second.execution_id, True)]
    assert second.attempts == 2


def test_a_device_that_reported_progress_never_gets_the_request_again(online):
    execution = online.send()
    online.say(execution, b'{"status":"IN_PROGRESS"}')
    online.service.disconnected(LAMP)
    online.link.published.clear()
    online.service.reachable(LAMP)
    assert online.published == []


def test_an_answer_before_its_puback_holds_nothing_up():
    bench = Bench(deliveries=Deliveries(window=1))
    bench.service.reachable(LAMP)
    first, second, third = (bench.send() for _ in range(3))
    bench.say(first)
    bench.say(second, b'{"status":"IN_PROGRESS"}')
    bench.service.acknowledged(LAMP, first.execution_id)
    bench.service.acknowledged(LAMP, second.execution_id)
    assert bench.published == [(e.execution_id, False) for e in (first, second, third)]


def test_an_expired_request_is_never_published(bench):
    execution = bench.send(ttl=5)
    bench.clock.advance(5)
    bench.service.reachable(LAMP)  # before the sweeper has come
    assert bench.published == []
    bench.service.expire()
    assert (execution.status, execution.delivery) == (Status.TIMED_OUT, Delivery.QUEUED)
    assert execution.retry_safe
    bench.service.reachable(LAMP)
    assert bench.published == []


def test_an_expired_request_makes_room_for_those_behind_it():
    bench = Bench(deliveries=Deliveries(window=1))
    bench.send(ttl=5)
    behind = bench.send(ttl=60)
    bench.clock.advance(5)
    bench.service.reachable(LAMP)
    bench.service.expire()
    assert bench.published == [(behind.execution_id, False)]


def test_over_qos_0_a_queue_longer_than_the_stack_goes_out_in_order():
    bench = Bench(deliveries=Deliveries(window=4, queue_max=5000))
    bench.link.acknowledging = False
    executions = [bench.send() for _ in range(5000)]
    bench.service.reachable(LAMP)
    assert bench.published == [(execution.execution_id, False) for execution in executions]
    assert bench.service.seconds_to_next_deadline() is not None
    executions.append(bench.send())
    assert bench.published[-1] == (executions[-1].execution_id, False)
    bench.link.published.clear()
    bench.service.disconnected(LAMP)
    bench.service.reachable(LAMP)
    assert bench.published == []


def test_when_the_thing_goes_in_the_middle_the_rest_stays_queued_and_is_new_next_time(bench):
    executions = [bench.send() for _ in range(3)]

    def go(execution, change):
        if change is Change.PUBLISHED and execution is executions[1]:
            bench.service.disconnected(LAMP)

    leave = bench.service.events.subscribe(go)
    bench.service.reachable(LAMP)
    leave()
    assert executions[2].delivery is Delivery.QUEUED
    bench.link.published.clear()
    bench.service.reachable(LAMP)
    first, second, third = (execution.execution_id for execution in executions)
    assert bench.published == [(first, True), (second, True), (third, False)]


def test_what_a_listener_ends_in_the_middle_is_not_published(bench):
    first, second = bench.send(), bench.send()

    def cancel_the_other(execution, change):
        if change is Change.PUBLISHED and execution is first:
            bench.service.cancel(second.execution_id)

    bench.service.events.subscribe(cancel_the_other)
    bench.service.reachable(LAMP)
    assert bench.published == [(first.execution_id, False)]
    assert second.status is Status.CANCELED


def test_a_listener_that_raises_costs_no_command_anything(online):
    online.service.events.subscribe(lambda execution, change: 1 / 0)
    with capture_logs():
        execution = online.send()
        online.say(execution)
    assert (execution.status, online.kept) == (Status.SUCCEEDED, 1)


def test_presence_is_noted_with_its_times(bench):
    bench.clock.advance(10)
    bench.service.disconnected(LAMP)
    thing = bench.service.things.get(LAMP)
    assert (thing.online, thing.client_id) == (False, "client")
    assert thing.last_seen - thing.first_seen == 10


def test_a_thing_that_unsubscribes_is_online_and_its_requests_wait(online):
    online.service.unreachable(LAMP)
    execution = online.send()
    assert execution.delivery is Delivery.QUEUED
    assert online.service.things.get(LAMP).online


# Responses.


def test_a_verdict_closes_the_execution(online):
    execution = online.send()
    online.clock.advance(2)
    online.say(execution)
    assert (execution.status, execution.result) == (Status.SUCCEEDED, b'{"on":true}')
    assert (execution.delivery, execution.ended_at - execution.created_at) == (Delivery.STARTED, 2)
    assert online.heard == [Change.CREATED, Change.PUBLISHED, Change.ENDED]
    assert online.service.counters["executions.SUCCEEDED"] == 1
    assert online.service.counters["responses.applied"] == 1
    assert online.kept == 1


def test_progress_is_told_and_the_execution_goes_on(online):
    execution = online.send()
    online.say(execution, b'{"status":"IN_PROGRESS","progress":{"percent":50}}')
    assert (execution.status, execution.progress.percent) == (Status.IN_PROGRESS, 50)
    assert online.heard[-1] is Change.PROGRESSED


def test_a_late_verdict_is_kept_beside_the_time_out_and_told(online):
    execution = online.send(ttl=5)
    online.clock.advance(5)
    online.service.expire()
    online.clock.advance(2.5)
    online.say(execution)
    assert (execution.status, execution.late.status) == (Status.TIMED_OUT, Status.SUCCEEDED)
    assert execution.late.delay_seconds == 2.5
    assert online.heard[-1] is Change.LATE
    online.say(execution)
    assert online.heard.count(Change.LATE) == 1
    assert online.service.counters["responses.late"] == 1
    assert online.service.counters["responses.repeated"] == 1
    assert online.kept == 2


def test_an_equal_repeat_is_counted_and_nothing_else():
    bench = Bench(journal=HeldJournal())
    execution = bench.send()
    bench.say(execution)
    before = (len(bench.journal.recorded), len(bench.heard))
    with capture_logs() as logs:
        bench.say(execution)
    assert bench.service.counters["responses.repeated"] == 1
    assert (len(bench.journal.recorded), len(bench.heard)) == before
    assert logs == []


def test_a_conflicting_verdict_is_counted_logged_and_never_applied(online):
    execution = online.send()
    online.say(execution)
    with capture_logs() as logs:
        online.say(execution, b'{"status":"FAILED"}')
    assert (execution.status, execution.conflicts) == (Status.SUCCEEDED, 1)
    assert online.service.counters["responses.conflicting"] == 1
    assert [(e["event"], e["thing"]) for e in logs] == [("response contradicts the verdict", LAMP)]
    assert online.kept == 2


DROPS = [
    (None, SUCCEEDED, LAMP, "unknownExecution"),
    ("mine", b"not json", LAMP, "badPayload"),
    ("mine", b'{"status":"TIMED_OUT"}', LAMP, "badPayload"),
    ("mine", b'{"status":"SUCCEEDED","result":"\xff"}', LAMP, "badPayload"),
    ("mine", b" " * (PAYLOAD_MAX + 1), LAMP, "badPayload"),
    ("mine", SUCCEEDED, "another", "wrongThing"),
]


@pytest.mark.parametrize(("whose", "payload", "thing", "reason"), DROPS)
def test_what_means_nothing_is_dropped_counted_logged_and_acknowledged(online, whose, payload, thing, reason):
    execution = online.send()
    target = execution if whose else "0193448f-unknown"
    with capture_logs() as logs:
        online.say(target, payload, thing)
    assert online.service.counters[f"dropped.{reason}"] == 1
    assert [(e["event"], e["thing"], e["reason"]) for e in logs] == [("message dropped", thing, reason)]
    assert (execution.status, online.kept) == (Status.SENT, 1)
    assert online.heard == [Change.CREATED, Change.PUBLISHED]


def test_of_a_things_faults_one_a_minute_is_logged_and_every_one_counted(bench):
    with capture_logs() as logs:
        for _ in range(100):
            bench.say("nothing")
        bench.service.dropped(LAMP, "badTopic", "no such topic")
        bench.say("nothing", thing="other")
        told = [(entry["thing"], entry["reason"]) for entry in logs]  # one reason does not hide another
        assert told == [(LAMP, "unknownExecution"), (LAMP, "badTopic"), ("other", "unknownExecution")]
        bench.clock.advance(59.9)
        bench.say("nothing")
        assert len(logs) == 3
        bench.clock.jump(86400)
        bench.say("nothing")
        assert len(logs) == 3
        bench.clock.advance(0.1)
        bench.say("nothing")
        assert len(logs) == 4
    assert bench.service.counters["dropped.unknownExecution"] == 104
    assert bench.service.counters["dropped.badTopic"] == 1


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_no_payload_harms_the_service(payload):
    bench = Bench()
    execution = bench.send()
    with capture_logs():
        bench.say(execution, payload)
        bench.service.announce(LAMP, payload)
    assert bench.kept == 1


def test_an_acknowledgement_of_what_is_unknown_is_ignored(bench):
    bench.service.acknowledged(LAMP, "unknown")
    bench.service.acknowledged("nobody", "unknown")
    assert bench.heard == []


def test_a_second_acknowledgement_tells_nothing_new(online):
    execution = online.send()
    online.service.acknowledged(LAMP, execution.execution_id)
    online.service.acknowledged(LAMP, execution.execution_id)
    assert online.heard.count(Change.DELIVERED) == 1


def test_an_announcement_is_kept_replaced_and_withdrawn(bench):
    bench.service.announce(LAMP, b'{"agentVersion":"2","actions":[{"name":"turnOn"}]}')
    assert bench.service.things.get(LAMP).announcement.actions[0].name == "turnOn"
    with capture_logs() as logs:
        bench.service.announce(LAMP, b'{"actions":[{"name":7}]}')
    assert bench.service.counters["dropped.badAnnouncement"] == 1
    assert "/actions/0/name" in logs[0]["fault"]
    assert bench.service.things.get(LAMP).announcement is not None
    bench.service.announce(LAMP, b"")
    assert bench.service.things.get(LAMP).announcement is None


# Cancel.


def test_canceled_before_it_is_published_it_is_never_delivered(bench):
    execution = bench.send()
    assert bench.service.cancel(execution.execution_id) is execution
    assert execution.status is Status.CANCELED
    bench.service.reachable(LAMP)
    assert (bench.published, bench.link.canceled) == ([], [])
    assert bench.heard == [Change.CREATED, Change.ENDED]


def test_canceled_after_it_is_published_the_device_is_asked_once(online):
    execution = online.send()
    online.service.cancel(execution.execution_id)
    online.service.cancel(execution.execution_id)
    assert online.link.canceled == [(LAMP, execution.execution_id)]
    assert (execution.status, execution.cancel_requested_at) == (Status.SENT, online.clock.unix())
    assert online.heard.count(Change.CANCEL_REQUESTED) == 1


@pytest.mark.parametrize("verdict", ["CANCELED", "SUCCEEDED"])
def test_the_devices_verdict_on_a_cancel_decides(online, verdict):
    execution = online.send()
    online.service.cancel(execution.execution_id)
    online.say(execution, json.dumps({"status": verdict}).encode())
    assert execution.status == verdict
    online.clock.advance(1000)
    assert online.service.expire() == 0


def test_without_a_verdict_the_grace_ends_it_and_anything_after_is_late():
    bench = Bench(settings=ServiceSettings(cancel_grace=4.0))
    bench.service.reachable(LAMP)
    execution = bench.send()
    bench.service.cancel(execution.execution_id)
    assert bench.service.seconds_to_next_deadline() == 4.0
    bench.clock.advance(3.999)
    assert bench.service.expire() == 0
    bench.clock.advance(0.001)
    assert bench.service.expire() == 1
    bench.say(execution)
    assert (execution.status, execution.late.status) == (Status.CANCELED, Status.SUCCEEDED)


@pytest.mark.parametrize("acknowledged", [False, True])
def test_on_every_reconnect_a_request_being_canceled_is_not_repeated_but_its_cancel_is(online, acknowledged):
    execution = online.send()
    if acknowledged:
        online.service.acknowledged(LAMP, execution.execution_id)
    online.service.disconnected(LAMP)
    online.service.cancel(execution.execution_id)
    online.link.published.clear()
    online.link.canceled.clear()
    for _ in range(2):
        online.service.reachable(LAMP)
        online.service.unreachable(LAMP)
    assert online.published == []
    assert online.link.canceled == [(LAMP, execution.execution_id)] * 2
    online.say(execution, b'{"status":"CANCELED"}')
    online.service.reachable(LAMP)
    assert len(online.link.canceled) == 2


def test_what_is_being_canceled_makes_room_for_what_is_behind():
    bench = Bench(deliveries=Deliveries(window=1))
    bench.service.reachable(LAMP)
    first, second = bench.send(), bench.send()
    bench.service.cancel(first.execution_id)
    assert bench.published == [(first.execution_id, False), (second.execution_id, False)]


def test_what_has_ended_cannot_be_canceled(online):
    execution = online.send()
    online.say(execution)
    with pytest.raises(AlreadyEnded, match="SUCCEEDED"):
        online.service.cancel(execution.execution_id)


def test_what_is_unknown_cannot_be_canceled_nor_shown(bench):
    for use_case in (bench.service.cancel, bench.service.get):
        with pytest.raises(UnknownExecution, match="'0193'"):
            use_case("0193")


# Time.


def test_the_ttl_runs_out_at_its_exact_edge(bench):
    execution = bench.send(ttl=30)
    assert bench.service.seconds_to_next_deadline() == 30
    bench.clock.advance(29.999)
    assert bench.service.expire() == 0
    bench.clock.advance(0.001)
    assert bench.service.seconds_to_next_deadline() == 0
    assert bench.service.expire() == 1
    assert execution.status is Status.TIMED_OUT
    assert bench.service.counters["executions.TIMED_OUT"] == 1
    assert bench.service.seconds_to_next_deadline() is None
    assert bench.service.expire() == 0


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_a_wall_clock_a_day_off_changes_no_deadline(online, jump):
    execution = online.send(ttl=30)
    online.clock.jump(jump)
    online.clock.advance(29.9)
    assert online.service.expire() == 0
    online.clock.jump(-2 * jump)
    online.clock.advance(0.1)
    assert online.service.expire() == 1
    assert execution.status is Status.TIMED_OUT


def test_one_call_closes_a_bounded_number_and_the_next_the_rest(bench, monkeypatch):
    monkeypatch.setattr("thingctl_broker.commands.service.EXPIRE_MAX", 2)
    for _ in range(5):
        bench.send(ttl=1)
    bench.clock.advance(1)
    assert [bench.service.expire() for _ in range(4)] == [2, 2, 1, 0]


def test_what_ended_long_ago_leaves_the_table_and_the_journal():
    bench = Bench(table=ExecutionTable(keep_seconds=60.0), journal=HeldJournal())
    execution = bench.send(ttl=1)
    bench.clock.advance(1)
    bench.service.expire()
    bench.clock.advance(60)
    bench.service.expire()
    assert bench.journal.forgotten == [execution.execution_id]
    with pytest.raises(UnknownExecution):
        bench.service.get(execution.execution_id)


# Nothing is told before it is kept.


@pytest.fixture
def held():
    bench = Bench(journal=HeldJournal())
    bench.service.reachable(LAMP)
    return bench


def test_nothing_is_published_before_it_is_kept(held):
    executions = [held.send() for _ in range(3)]
    assert held.published == []
    # On record before it is true, so that a crash in between cannot make a lie of it.
    assert {execution.delivery for execution in executions} == {Delivery.PUBLISHED}
    held.journal.commit()
    assert held.published == [(execution.execution_id, False) for execution in executions]


def test_nothing_is_acknowledged_before_it_is_kept(held):
    execution = held.send()
    held.journal.commit()
    held.say(execution)
    assert held.kept == 0
    held.say(execution)  # the same again: the first is not yet kept either
    assert held.kept == 0
    held.journal.commit()
    assert held.kept == 2


def test_canceled_before_it_is_kept_it_is_never_published(held):
    execution = held.send()
    held.service.cancel(execution.execution_id)
    held.journal.commit()
    held.service.reachable(LAMP)
    held.journal.commit()
    assert held.published == []
    held.clock.advance(held.service.settings.cancel_grace)
    held.service.expire()
    assert execution.status is Status.CANCELED


def test_expired_before_it_is_kept_it_is_never_published(held):
    execution = held.send(ttl=1)
    held.clock.advance(1)
    held.service.expire()
    held.journal.commit()
    assert (held.published, execution.status) == ([], Status.TIMED_OUT)


def test_kept_only_after_its_deadline_it_is_never_published_though_nobody_swept(held):
    held.send(ttl=1)
    held.clock.advance(1)
    held.journal.commit()
    assert held.published == []
    assert held.service.expire() == 1


def test_a_cancel_goes_out_only_when_it_is_kept(held):
    execution = held.send()
    held.journal.commit()
    held.service.cancel(execution.execution_id)
    assert held.link.canceled == []
    held.journal.commit()
    assert held.link.canceled == [(LAMP, execution.execution_id)]


def test_a_cancel_that_lost_the_race_before_it_is_kept_stays_here(held):
    execution = held.send()
    held.journal.commit()
    held.service.cancel(execution.execution_id)
    held.say(execution)
    held.journal.commit()
    assert held.link.canceled == []
    assert execution.status is Status.SUCCEEDED


def test_kept_while_the_thing_is_away_it_waits(held):
    execution = held.send()
    held.service.disconnected(LAMP)
    held.journal.commit()
    assert held.published == []
    held.service.reachable(LAMP)
    held.journal.commit()
    assert held.published == [(execution.execution_id, True)]


def test_every_change_is_recorded_in_its_order(held):
    execution = held.send()
    held.journal.commit()
    held.service.acknowledged(LAMP, execution.execution_id)
    held.say(execution)
    assert [(status, delivery) for _, status, delivery in held.journal.recorded] == [
        ("SENT", "PUBLISHED"),
        ("SENT", "DELIVERED"),
        ("SUCCEEDED", "STARTED"),
    ]


def test_the_shipped_fakes_make_the_same_service():
    service, link, clock = service_with_fakes([LAMP])
    service.reachable(LAMP)
    execution = service.send(LAMP, "turnOn", ttl=5)
    assert [request.execution_id for request in link.published] == [execution.execution_id]
    clock.advance(5)
    assert service.expire() == 1


def test_what_could_not_be_kept_never_was(held):
    held.send()
    held.journal.commit()
    lost = held.send(idempotency_key="k")
    held.journal.fail()
    with pytest.raises(UnknownExecution):
        held.service.get(lost.execution_id)
    assert held.service.counters["executions.withdrawn"] == 1
    with pytest.raises(NotAccepting) as caught:
        held.send()
    assert caught.value.retry_after > 0
    held.journal.commit()
    assert len(held.published) == 1
    assert held.send(idempotency_key="k") is not lost


def test_while_nothing_can_be_kept_what_is_known_is_still_found_by_its_key(held):
    execution = held.send(idempotency_key="k")
    held.journal.commit()
    held.journal.accepting = False
    assert held.send(idempotency_key="k") is execution


# The same command again.


def test_the_same_key_and_command_give_the_same_execution(online):
    execution = online.send(requested_by="ann", idempotency_key="k")
    assert online.send(requested_by="ann", idempotency_key="k") is execution
    assert len(online.published) == 1
    assert online.send(requested_by="bob", idempotency_key="k") is not execution


def test_the_same_key_and_another_command_conflict(online):
    online.send(idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        online.send(idempotency_key="k", params=b'{"x":1}')
    assert len(online.service.table) == 1


def test_a_wrong_command_with_a_key_is_refused_like_any_other(online):
    with pytest.raises(InvalidCommand):
        online.service.send("\ud800", "turnOn", idempotency_key="k")
    online.send(idempotency_key="k")


# After a restart.


def restarted(*executions, **parts):
    bench = Bench(**parts)
    assert bench.service.restore(executions) == len(executions)
    return bench


def test_after_a_restart_each_execution_is_where_it_was():
    waiting, published = make_execution(thing=LAMP), make_execution(thing=LAMP)
    delivered, started = make_execution(thing=LAMP), make_execution(thing=LAMP)
    for execution in (published, delivered, started):
        execution.published(AT)
    delivered.delivered(AT)
    started.respond(say(Status.IN_PROGRESS), AT)
    ended = make_execution(thing=LAMP, status=Status.SUCCEEDED, ended_at=AT)
    bench = restarted(waiting, published, delivered, started, ended)
    assert bench.service._deliveries.waiting(LAMP) == 1
    bench.service.reachable(LAMP)
    assert bench.published == [(published.execution_id, True), (waiting.execution_id, False)]
    assert bench.service.table.live == 4
    assert len(bench.service.list(Query(), 10).executions) == 5


def test_after_a_restart_a_cancel_still_goes_out_and_its_request_does_not():
    execution = make_execution(thing=LAMP)
    execution.published(AT)
    execution.cancel(NOW, AT, 10.0)
    bench = restarted(execution)
    bench.service.reachable(LAMP)
    assert (bench.published, bench.link.canceled) == ([], [(LAMP, execution.execution_id)])
    bench.clock.advance(10)
    assert bench.service.expire() == 1
    assert execution.status is Status.CANCELED


def test_after_a_restart_new_ids_follow_the_old_though_the_clock_was_set_back():
    last = make_execution(execution_id=IdSource().make(2**42, 0), thing=LAMP)
    bench = restarted(last)
    assert bench.send().execution_id > last.execution_id


def test_after_a_restart_keys_and_waiting_things_are_known():
    execution = make_execution(
        thing="porch", idempotency_key="k", fingerprint=fingerprint("porch", "turnOn", b"{}", None)
    )
    bench = restarted(execution)
    assert bench.service.send("porch", "turnOn", idempotency_key="k") is execution
    assert not bench.service.things.get("porch").online


def test_a_restart_with_more_than_fits_forgets_the_ended_and_no_live_one():
    live = [make_execution(thing=LAMP) for _ in range(3)]
    ended = make_execution(thing=LAMP, status=Status.SUCCEEDED, ended_at=AT)
    bench = restarted(*live, ended, table=ExecutionTable(capacity=2), journal=HeldJournal())
    assert bench.journal.forgotten == [ended.execution_id]
    assert bench.service.table.live == 3


async def test_a_restart_with_more_than_fits_starts_on_the_real_journal_too(tmp_path):
    journal = SqliteJournal(tmp_path)
    await journal.start()
    for _ in range(3):
        journal.record(make_execution(thing=LAMP, status=Status.SUCCEEDED, ended_at=AT))
    await journal.stop()
    for _ in range(2):  # the second time there is nothing to let go
        journal = SqliteJournal(tmp_path)
        bench = Bench(table=ExecutionTable(capacity=2), journal=journal)
        restored = bench.service.restore(journal.recover(NOW, AT))
        assert len(bench.service.table) == 2
        await journal.start()
        await journal.stop()
    assert restored == 2


def test_a_restart_with_nothing_kept_is_a_start():
    assert restarted().send().delivery is Delivery.QUEUED


def test_each_log_line_about_an_execution_names_it_and_its_thing():
    bench = Bench()
    bench.service.connected("lock", "client")
    execution = bench.send()
    with capture_logs() as logs:
        for thing, execution_id, payload in (
            (LAMP, execution.execution_id, b"{"),
            ("lock", execution.execution_id, SUCCEEDED),
            ("nobody", "nothing", SUCCEEDED),
        ):
            bench.say(execution_id, payload, thing)
        bench.say(execution)
        bench.clock.advance(61)
        bench.say(execution, b'{"status":"FAILED"}')
        bench.service.events.subscribe(lambda *_: 1 / 0)
        bench.send()
    assert len(logs) == 5
    for line in logs:
        assert line["thing"], line
        assert line["execution_id"], line


# What a restart finds.


def restored(execution, **parts):
    bench = Bench(**parts)
    bench.service.restore([execution])
    return bench


def test_a_cancel_that_was_kept_and_not_made_is_made_by_the_restart():
    execution = make_execution(thing=LAMP)
    execution.cancel_wanted_at = AT
    restored(execution)
    assert execution.status is Status.CANCELED


def test_a_command_of_a_thing_that_was_removed_is_canceled_by_the_restart():
    execution = make_execution(thing="gone")
    restored(execution, things=ThingRegistry(enrols=False, changed=lambda *_: None))
    assert execution.status is Status.CANCELED


def test_a_thing_that_enrolled_itself_is_known_by_its_live_command():
    registry = ThingRegistry(enrols=True, changed=lambda *_: None)
    restored(make_execution(thing="new"), things=registry)
    assert registry.get("new") is not None
