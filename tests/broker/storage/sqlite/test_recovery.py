"""Whatever happens in whatever order, crashes included: nothing accepted is lost, nothing told was untrue.

The reference keeps only what the outside has been told, by the broker's own acknowledgements,
and what the devices have seen. After every step the broker is held against that.
"""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_broker.errors import AlreadyEnded, IdempotencyConflict, NotAccepting
from thingctl_broker.testing import InMemoryJournal, ManualClock, service_with_fakes
from thingctl_protocol.messages import decode_request
from thingctl_protocol.statuses import TERMINAL

THINGS = ("a", "b")
GRACE = 5
DAY = 86_400.0
RESPONSES = [
    {"status": "IN_PROGRESS", "progress": {"percent": 50}},
    {"status": "SUCCEEDED", "result": [1, "\u0000é"]},
    {"status": "SUCCEEDED", "result": 2},
    {"status": "FAILED", "statusReason": {"reasonCode": "JAMMED", "reasonDescription": "…"}},
    {"status": "REJECTED"},
    {"status": "CANCELED"},
]


@dataclass
class Known:
    """An execution that a caller was told of."""

    thing: str
    deadline: float
    key: str = ""
    params: bytes = b"{}"
    ttl: int = 0
    created_at: float = 0.0
    verdict: tuple | None = None
    late: object = None
    started: bool = False


@dataclass
class Device:
    """What a thing has seen, and what it has still to say. Survives every crash of the broker."""

    here: bool = False
    seen: set = field(default_factory=set)
    in_flight: list = field(default_factory=list)
    outbox: list = field(default_factory=list)
    since: set = field(default_factory=set)
    """What it has got since it last subscribed."""


class Link:
    """Delivers to the devices of the model, and holds every request against the rules."""

    def __init__(self, model):
        self.model = model

    def publish_request(self, thing, execution_id, payload, *, again):
        model, device = self.model, self.model.devices[thing]
        execution = model.service.get(execution_id)
        assert device.here
        assert not execution.is_terminal
        assert model.clock.monotonic() < execution.deadline, "an expired request was published"
        assert execution.cancel_requested_at is None
        assert model.on_disk(execution_id)["published_at"] is not None, "written before it was on record"
        assert execution_id not in model.withdrawn
        request = decode_request(payload)
        assert (request.command_id, bytes(request.params)) == (execution.command_id, execution.params)
        if execution_id in device.seen:
            assert again, "a repeated request must say so"
        device.seen.add(execution_id)
        device.since.add(execution_id)
        device.in_flight.append(execution_id)
        return True

    def publish_cancel(self, thing, execution_id):
        execution = self.model.service.get(execution_id)
        assert execution.cancel_requested_at is not None
        assert self.model.on_disk(execution_id)["cancel_requested_at"] is not None


class Recovery(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.clock, self.journal, self.link = ManualClock(), InMemoryJournal(), Link(self)
        self.devices = {thing: Device() for thing in THINGS}
        self.known = {}
        self.withdrawn = set()
        self.boot()
        for thing in THINGS:
            self.subscribe(thing)

    def boot(self):
        self.service = CommandService(
            clock=self.clock,
            link=self.link,
            journal=self.journal,
            table=ExecutionTable(keep_seconds=1e12),  # history leaves by wall time, and that jumps here
            settings=ServiceSettings(cancel_grace=GRACE),
        )
        self.service.restore(self.journal.recover(self.clock.monotonic(), self.clock.unix()))
        for thing in THINGS:
            self.service.things.know(thing, 0.0)

    def on_disk(self, execution_id):
        recovered = {
            found.execution_id: found
            for found in self.journal.recover(self.clock.monotonic(), self.clock.unix())
            if found.execution_id == execution_id
        }
        found = recovered[execution_id]
        return {name: getattr(found, name) for name in found.__struct_fields__}

    # What operators do.

    @rule(
        thing=st.sampled_from(THINGS),
        ttl=st.integers(1, 20),
        key=st.sampled_from(["", "", "k", "l"]),
        params=st.sampled_from([b"{}", b'{"x":1}']),
        settle=st.booleans(),
    )
    def send(self, thing, ttl, key, params, settle):
        self.accept(thing, ttl, key, params)
        if settle:
            self.commit_all()

    def accept(self, thing, ttl, key, params):
        known = {
            (one.thing, one.params, one.ttl): name
            for name, one in self.known.items()
            if key and one.key == key
        }
        try:
            execution = self.service.send(thing, "act", params, ttl, idempotency_key=key)
        except NotAccepting:
            assert not self.journal.accepting
            assert not known
            return
        except IdempotencyConflict:
            assert (thing, params, ttl) not in known
            return
        if known:
            assert execution.execution_id == known[thing, params, ttl], (
                "the same key must be the same execution"
            )
            return
        told = Known(thing, execution.deadline, key, params, ttl, execution.created_at)

        def kept():
            assert execution.execution_id in self.journal.rows
            self.known.setdefault(execution.execution_id, told)

        self.journal.then(kept, lambda: self.withdrawn.add(execution.execution_id))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def read(self, data):
        name = data.draw(st.sampled_from(sorted(self.known)))
        execution = self.service.get(name)
        told = execution.status, execution.result, execution.reason, execution.late

        def kept():
            if told[0] in TERMINAL:
                self.known[name].verdict = told[:3]
                self.known[name].late = told[3]

        self.journal.then(kept)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.known)))
        try:
            self.service.cancel(name)
        except AlreadyEnded:
            assert self.service.get(name).is_terminal

    # What devices do.

    @rule(thing=st.sampled_from(THINGS))
    def subscribe(self, thing):
        device = self.devices[thing]
        device.here, device.in_flight, device.since = True, [], set()
        self.service.connected(thing, thing)
        self.service.reachable(thing)
        outbox, device.outbox = device.outbox, []
        for name, payload in outbox:  # QoS 1: what was not acknowledged is said again
            self.say(thing, name, payload)

    @rule(thing=st.sampled_from(THINGS))
    def disconnect(self, thing):
        if self.devices[thing].here:
            self.devices[thing].here = False
            self.service.disconnected(thing)

    @precondition(lambda self: any(device.here and device.in_flight for device in self.devices.values()))
    @rule(data=st.data())
    def puback(self, data):
        able = sorted(thing for thing, device in self.devices.items() if device.here and device.in_flight)
        thing = data.draw(st.sampled_from(able))
        self.service.acknowledged(thing, self.devices[thing].in_flight.pop(0))

    @precondition(lambda self: any(device.here and device.seen for device in self.devices.values()))
    @rule(data=st.data(), response=st.sampled_from(RESPONSES))
    def respond(self, data, response):
        able = {name: thing for thing, device in self.devices.items() if device.here for name in device.seen}
        name = data.draw(st.sampled_from(sorted(able)))
        self.say(able[name], name, json.dumps(response).encode())

    def say(self, thing, name, payload):
        entry = (name, payload)
        outbox = self.devices[thing].outbox
        outbox.append(entry)

        def kept():
            # PUBACK: the device forgets it, so the disk must not.
            outbox.remove(entry)
            disk = self.on_disk(name)
            assert disk["started_at"] is not None, "a response was acknowledged before it was kept"
            status = json.loads(payload)["status"]
            if status != "IN_PROGRESS":
                assert disk["status"] in TERMINAL, "a verdict was acknowledged before it was kept"
            if disk["status"] in {"TIMED_OUT", "CANCELED"} and status == "SUCCEEDED":
                assert disk["late"] is not None or disk["conflicts"], (
                    "a late response was acknowledged and lost"
                )
            known = self.known.get(name)
            if known is not None:
                known.started = True
                if disk["status"] in TERMINAL:
                    known.verdict = disk["status"], disk["result"], disk["reason"]

        self.service.respond(thing, name, payload, kept)

    # What time does.

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 25.0]), settle=st.booleans())
    def wait(self, seconds, settle):
        self.clock.advance(seconds)
        if settle:
            self.service.expire()
            self.commit_all()

    @rule()
    def sweep(self):
        self.service.expire()
        for name, one in self.known.items():
            if self.clock.monotonic() >= one.deadline:
                assert self.service.get(name).is_terminal

    @rule(seconds=st.sampled_from([DAY, -DAY]))
    def the_wall_clock_jumps(self, seconds):
        self.clock.jump(seconds)

    # What the disk does.

    @rule()
    def take(self):
        self.journal.take()

    @rule()
    def commit(self):
        self.journal.commit()

    @rule()
    def disk_full(self):
        if not self.journal.idle:
            self.journal.fail()

    @rule(
        written=st.booleans(),
        away=st.sampled_from([0.0, 3.0, 30.0]),
        jump=st.sampled_from([0.0, 0.0, DAY, -DAY]),
    )
    def crash(self, written, away, jump):
        if written:
            self.journal.write()  # on the disk, and nobody was told
        disk = self.journal.rows
        self.journal = InMemoryJournal()
        self.journal.rows = disk
        self.clock.advance(away)
        self.clock.jump(jump)
        for device in self.devices.values():
            device.here = False
        self.boot()
        now, at = self.clock.monotonic(), self.clock.unix()
        for one in self.known.values():
            one.deadline = now + min(one.ttl, one.created_at + one.ttl - at)

    # What must hold, always.

    @invariant()
    def everything_told_is_still_true(self):
        for name, one in self.known.items():
            execution = self.service.get(name)
            assert (execution.thing, execution.params, execution.ttl) == (one.thing, one.params, one.ttl)
            assert execution.deadline == pytest.approx(one.deadline, abs=1e-3)
            if one.verdict is not None:
                assert (execution.status, execution.result, execution.reason) == one.verdict
            if one.started:
                assert execution.started_at is not None
            if one.late is not None:
                assert execution.late is not None

    @invariant()
    def retry_safe_is_never_said_of_what_a_thing_has_seen(self):
        for device in self.devices.values():
            for name in device.seen:
                assert not self.service.get(name).retry_safe

    @invariant()
    def what_is_on_the_disk_was_told_to_nobody_or_is_still_known(self):
        for name in self.withdrawn:
            assert name not in self.known
            assert all(name not in device.seen for device in self.devices.values())

    @invariant()
    def nothing_waits_in_vain(self):
        if not self.journal.idle or not self.journal.accepting:
            return
        now = self.clock.monotonic()
        for execution in self.service.table:
            device = self.devices[execution.thing]
            if (
                device.here
                and not execution.is_terminal
                and execution.delivered_at is None
                and execution.started_at is None
                and execution.cancel_requested_at is None
                and now < execution.deadline
            ):
                assert execution.execution_id in device.since, "it waits, though its thing is there"

    def teardown(self):
        if not hasattr(self, "service"):
            return
        self.commit_all()
        for thing in THINGS:
            self.subscribe(thing)
        self.commit_all()
        self.nothing_waits_in_vain()
        self.clock.advance(20 + GRACE)
        while self.service.expire():
            pass
        self.commit_all()
        assert self.service.table.live == 0
        self.crash(written=False, away=0.0, jump=0.0)
        assert all(execution.is_terminal for execution in self.service.table)
        self.everything_told_is_still_true()

    def commit_all(self):
        while not self.journal.idle:
            self.journal.commit()


TestRecovery = Recovery.TestCase
TestRecovery.settings = settings(stateful_step_count=60)


def test_after_a_restart_a_thing_is_known_by_what_it_was_sent():
    journal = InMemoryJournal()
    service, _, clock = service_with_fakes(["lamp"], journal)
    service.send("lamp", "turnOn", ttl=1)
    clock.advance(1)
    service.expire()
    journal.commit()
    restarted, _, _ = service_with_fakes([], InMemoryJournal())
    restarted.restore(journal.recover(clock.monotonic(), clock.unix()))
    assert restarted.send("lamp", "turnOn").delivery == "QUEUED"


def test_what_timed_out_while_the_disk_took_its_time_to_fail_never_was_either():
    journal = InMemoryJournal()
    service, _, clock = service_with_fakes(["lamp"], journal)
    execution = service.send("lamp", "turnOn", ttl=1, idempotency_key="k")
    journal.take()
    clock.advance(1)
    service.expire()
    assert execution.is_terminal
    journal.fail()
    assert list(service.table) == []
    journal.commit()
    assert service.send("lamp", "turnOn", ttl=1, idempotency_key="k") is not execution
    clock.advance(1)
    service.expire()
    journal.commit()
    assert len(journal.rows) == 1
