"""A request is on record before it is written, and is not written once that has been overtaken."""

import pytest

from broker_support import AT, HeldJournal, make_execution, say
from thingctl_broker.commands.delivery import Deliveries
from thingctl_broker.commands.dispatcher import Publisher
from thingctl_broker.commands.events import Change
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.testing import InMemoryLink, ManualClock
from thingctl_protocol.statuses import Status

THING = "thermostat-001"


class Bench:
    def __init__(self):
        self.journal, self.link, self.clock = HeldJournal(), InMemoryLink(), ManualClock()
        self.table, self.deliveries = ExecutionTable(), Deliveries(window=2)
        self.heard = []
        self.publisher = Publisher(
            deliveries=self.deliveries,
            table=self.table,
            link=self.link,
            journal=self.journal,
            clock=self.clock,
            changed=self._changed,
            stayed_here=lambda execution: execution.stayed_here(self.clock.unix()),
        )

    def _changed(self, execution, change):
        self.journal.record(execution)
        self.heard.append(change)

    def waiting(self, **fields):
        execution = make_execution(**fields)
        self.table.add(execution)
        assert not self.publisher.offer(execution, AT)
        return execution

    @property
    def published(self):
        return [(request.execution_id, request.again) for request in self.link.published]


@pytest.fixture
def bench():
    return Bench()


def test_what_waits_is_recorded_as_published_first_and_then_written(bench):
    execution = bench.waiting()
    bench.publisher.reachable(THING)
    assert (execution.attempts, bench.heard, bench.published) == (1, [Change.PUBLISHED], [])
    bench.journal.commit()
    assert bench.published == [(execution.execution_id, False)]


def test_what_can_go_at_once_is_marked_before_its_creation_is_recorded(bench):
    bench.publisher.reachable(THING)
    execution = make_execution()
    assert bench.publisher.offer(execution, AT)
    assert (execution.attempts, execution.published_at) == (1, AT)
    assert bench.heard == []


OVERTAKEN = {
    "ended": lambda bench, execution: execution.respond(say(Status.SUCCEEDED), AT),
    "expired": lambda bench, execution: bench.clock.advance(30),
    "being canceled": lambda bench, execution: execution.cancel(1000.0, AT, 10.0),
    "withdrawn": lambda bench, execution: bench.table.withdraw(execution),
    "gone": lambda bench, execution: bench.deliveries.unreachable(THING),
}


@pytest.mark.parametrize("overtake", OVERTAKEN.values(), ids=OVERTAKEN)
def test_overtaken_while_it_was_being_kept_it_is_not_written(bench, overtake):
    execution = bench.waiting()
    bench.publisher.reachable(THING)
    overtake(bench, execution)
    bench.journal.commit()
    assert bench.published == []


@pytest.mark.parametrize("overtake", list(OVERTAKEN)[:3])
def test_overtaken_before_the_thing_came_it_is_not_even_recorded(bench, overtake):
    execution = bench.waiting()
    execution.published(AT)
    OVERTAKEN[overtake](bench, execution)
    bench.publisher.reachable(THING)
    assert (execution.attempts, bench.heard) == (1, [])


def test_a_thing_that_left_and_came_back_meanwhile_gets_it_once(bench):
    execution = bench.waiting()
    bench.publisher.reachable(THING)
    bench.deliveries.unreachable(THING)
    bench.publisher.reachable(THING)
    bench.journal.commit()
    assert bench.published == [(execution.execution_id, True)]


def test_what_nobody_will_acknowledge_makes_room_at_once(bench):
    bench.link.acknowledging = False
    executions = [bench.waiting() for _ in range(5)]
    bench.publisher.reachable(THING)
    for _ in range(5):
        bench.journal.commit()
    assert bench.published == [(execution.execution_id, False) for execution in executions]


def test_a_cancel_is_written_when_it_is_kept_and_whenever_the_thing_comes_back(bench):
    execution = bench.waiting()
    bench.publisher.reachable(THING)
    bench.journal.commit()
    bench.journal.record(execution)
    bench.publisher.cancel(execution)
    assert bench.link.canceled == []
    bench.journal.commit()
    assert bench.link.canceled == [(THING, execution.execution_id)]
    bench.publisher.reachable(THING)
    assert bench.link.canceled == [(THING, execution.execution_id)] * 2
    bench.publisher.ended(THING, execution.execution_id)
    bench.publisher.reachable(THING)
    assert len(bench.link.canceled) == 2


def test_a_cancel_that_its_execution_has_overtaken_is_not_written(bench):
    execution = bench.waiting()
    bench.journal.record(execution)
    bench.publisher.cancel(execution)
    execution.respond(say(Status.SUCCEEDED), AT)
    bench.journal.commit()
    assert bench.link.canceled == []
