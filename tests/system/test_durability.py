"""Disks, clocks and devices that misbehave, against a real broker over real TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import shutil
import time
from contextlib import closing
from http.client import HTTPConnection

import pytest

from support.brokers import front_broker
from support.processes import BIN, TOKEN, output, process, serving
from support.waits import soon
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.storage.sqlite.journal import SqliteJournal
from thingctl_broker.testing import InMemoryJournal, ManualClock
from thingctl_protocol.statuses import Status
from thingctl_protocol.topics import Topics

pytestmark = pytest.mark.system

DAY = 86_400.0
TOPICS = Topics()


@pytest.fixture
async def journal(tmp_path):
    journal = SqliteJournal(tmp_path)
    await journal.start()
    yield journal
    await journal.stop()


async def connected(running, name="lamp"):
    client = await RawClient.connected(running.address, name)
    assert await client.subscribe(TOPICS.request_filter(name)) == [1]
    return client


# Devices that come and go.


@pytest.mark.parametrize("seen_before", [False, True])
async def test_a_device_that_comes_back_after_the_ttl_never_sees_the_command(journal, seen_before):
    clock = ManualClock()
    async with front_broker(clock=clock, journal=journal) as running:
        running.service.things.know("lamp", 0.0)
        if seen_before:
            client = await connected(running)
        execution = running.service.send("lamp", "turnOn", ttl=5)
        if seen_before:
            await client.expect_publish()
            client.reset()  # before any PUBACK
        clock.advance(5)  # and nobody has swept yet
        client = await connected(running)
        await client.ping()
        assert execution.attempts == int(seen_before)
        assert running.service.expire() == 1
        assert (execution.status, execution.retry_safe) == (Status.TIMED_OUT, not seen_before)
        await client.ping()


async def test_a_device_that_flaps_a_thousand_times_gets_each_command_at_least_once(journal):
    """It reads what is there by now, acknowledges half of that, and is gone."""
    seen, sent = {}, []
    async with front_broker(journal=journal) as running:
        running.service.things.know("lamp", 0.0)
        for i in range(1000):
            if i % 10 == 0:
                sent.append(running.service.send("lamp", "turnOn", ttl=3600).execution_id)
            client = await connected(running)
            waiting = len(sent) - sum(seen.values())
            for _ in range(min(waiting, i % 4)):
                request = await client.expect_publish()
                execution_id = TOPICS.parse(request.topic).execution_id
                seen.setdefault(execution_id, False)
                if i % 2:
                    client.send(CODEC_3.encode_puback(request.packet_id))
                    seen[execution_id] = True
            if i % 2:
                await client.ping()
            client.reset()
        client = await connected(running)
        for _ in range(len(sent) - sum(seen.values())):
            request = await client.expect_publish()
            execution_id = TOPICS.parse(request.topic).execution_id
            assert request.dup or execution_id not in seen
            seen[execution_id] = True
        await client.ping()
    assert sorted(seen) == sent
    assert all(seen.values())


async def test_a_response_that_is_repeated_is_not_acknowledged_before_it_is_kept():
    journal = InMemoryJournal()
    async with front_broker(journal=journal) as running:
        client = await connected(running)
        execution = running.service.send("lamp", "turnOn")
        journal.commit()
        await client.expect_publish()
        topic = TOPICS.response("lamp", execution.execution_id).encode()
        response = CODEC_3.encode_publish(topic, b'{"status":"SUCCEEDED"}', qos=2, packet_id=7)
        client.send(response + response)
        await client.ping()  # and no PUBREC before the answer
        journal.commit()
        for _ in range(2):
            await client.expect(PacketType.PUBREC)


# Clocks.


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_wall_clock_that_jumps_moves_no_deadline(journal, jump):
    clock = ManualClock()
    async with front_broker(clock=clock, journal=journal) as running:
        running.service.things.know("lamp", 0.0)
        before = running.service.send("lamp", "turnOn", ttl=60)
        clock.jump(jump)
        after = running.service.send("lamp", "turnOn", ttl=60)
        clock.advance(59.9)
        assert running.service.expire() == 0
        client = await connected(running)
        for execution in (before, after):
            assert execution.execution_id in (await client.expect_publish()).topic
        clock.advance(0.1)
        assert running.service.expire() == 2
        assert {before.status, after.status} == {Status.TIMED_OUT}


@pytest.mark.parametrize(("jump", "left"), [(0.0, 50.0), (DAY, 0.0), (-DAY, 60.0)])
async def test_across_a_restart_deadlines_go_on_by_wall_time(tmp_path, jump, left):
    """And nothing gets more than its whole TTL again."""
    clock = ManualClock()
    first = SqliteJournal(tmp_path)
    await first.start()
    async with front_broker(clock=clock, journal=first) as running:
        running.service.things.know("lamp", 0.0)
        execution_id = running.service.send("lamp", "turnOn", ttl=60).execution_id
    await first.stop()

    clock.advance(10.0)
    clock.jump(jump)
    second = SqliteJournal(tmp_path)
    async with front_broker(clock=clock, journal=second) as running:
        running.service.restore(second.recover(clock.monotonic(), clock.unix()))
        await second.start()
        if left:
            clock.advance(left - 0.1)
            assert running.service.expire() == 0
            clock.advance(0.1)
        client = await connected(running)
        await client.ping()  # expired, and not swept yet: it stays here
        assert running.service.expire() == 1
        execution = running.service.get(execution_id)
        assert (execution.status, execution.retry_safe) == (Status.TIMED_OUT, True)
        await second.stop()


# Disks.


class Operator:
    """Calls the API of a broker that runs."""

    def __init__(self, broker):
        self._address = broker.http_address

    def ask(self, method, path, body=None, **headers):
        with closing(HTTPConnection(*self._address, timeout=10)) as connection:
            headers |= {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def send(self, text="", **fields):
        body = {"thingId": "lamp", "action": "turnOn", "params": {"text": text}} | fields
        return self.ask("POST", "/api/v1/commands", body)


def logged(broker, event):
    return [line for line in output(broker.process).splitlines() if event in line]


def test_a_disk_that_is_full_stops_new_commands_only_and_goes_on_by_itself(tmp_path):
    """No file of the broker may grow: writes fail as on a full disk, until there is room again."""
    with serving(tmp_path) as broker, contextlib.ExitStack() as until_end:
        operator, loop = Operator(broker), asyncio.new_event_loop()
        until_end.callback(loop.close)
        device = loop.run_until_complete(RawClient.connected(broker.mqtt_address, "lamp"))
        until_end.callback(lambda: loop.run_until_complete(device.close()))
        loop.run_until_complete(device.subscribe(TOPICS.request_filter("lamp")))
        status, running = operator.send(ttl=600)
        assert status == 201
        loop.run_until_complete(device.expect_publish())

        unlimited = resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE)
        size = (tmp_path / "executions.db-wal").stat().st_size
        resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (size + 4096, unlimited[1]))
        status, refusal = operator.send("x" * 100_000)
        assert (status, refusal["type"]) == (503, "urn:thingctl:problem:not-accepting")
        for _ in range(3):
            assert operator.send()[0] == 503
        assert len(logged(broker, "executions cannot be kept")) == 1
        # What runs goes on, and who asks is answered.
        path = f"/api/v1/commands/{running['executionId']}"
        answer = CODEC_3.encode_publish(
            TOPICS.response("lamp", running["executionId"]).encode(),
            b'{"status":"SUCCEEDED"}',
            qos=1,
            packet_id=9,
        )
        device.send(answer)
        soon(lambda: operator.ask("GET", path)[1]["status"] == "SUCCEEDED")
        assert len(operator.ask("GET", "/api/v1/commands")[1]["executions"]) == 1
        assert operator.ask("GET", path + "?wait=5")[0] == 200
        time.sleep(1.2)  # a retry of the journal's has come and gone
        assert operator.send()[0] == 503
        assert len(logged(broker, "executions cannot be kept")) == 1

        resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, unlimited)
        soon(lambda: operator.send(ttl=600)[0] == 201)
        assert len(logged(broker, "executions are kept again")) == 1
        puback = loop.run_until_complete(device.expect(PacketType.PUBACK))  # only now
        assert packets.parse_packet_id(puback) == 9
        assert loop.run_until_complete(device.expect_publish()).payload.find(b"xxx") == -1
        before = operator.ask("GET", "/api/v1/commands")[1]
        broker.process.kill()
        broker.process.wait()
    with serving(tmp_path) as broker:
        assert Operator(broker).ask("GET", "/api/v1/commands")[1] == before


def test_a_device_that_enrolled_itself_is_known_after_kill_9(tmp_path):
    """As soon as a command for it is accepted: an execution is never there without its thing."""
    for turn in range(3):
        name = f"new-{turn}"
        with serving(tmp_path) as broker:
            operator = Operator(broker)
            with closing(asyncio.new_event_loop()) as loop:
                loop.run_until_complete(see(broker.mqtt_address, name))
            body = {"thingId": name, "action": "turnOn", "ttl": 600}
            status, sent = operator.ask("POST", "/api/v1/commands", body)
            broker.process.kill()  # long before the next look at what has changed of things
            broker.process.wait()
            assert status == 201
        with serving(tmp_path) as broker:
            operator = Operator(broker)
            assert operator.ask("GET", f"/api/v1/things/{name}")[0] == 200
            assert operator.ask("GET", f"/api/v1/commands/{sent['executionId']}")[0] == 200


def test_a_data_directory_that_is_removed_stops_new_commands_and_not_in_silence(tmp_path):
    directory = tmp_path / "data"
    with serving(directory) as broker:
        operator = Operator(broker)
        with closing(asyncio.new_event_loop()) as loop:
            loop.run_until_complete(see(broker.mqtt_address, "lamp"))
        status, running = operator.send(ttl=600)
        assert status == 201
        shutil.rmtree(directory)
        for _ in range(3):
            status, refusal = operator.send()
            assert (status, refusal["type"]) == (503, "urn:thingctl:problem:not-accepting")
        (line,) = logged(broker, "executions cannot be kept")
        assert f"{directory}/executions.db" in line
        assert "was removed or moved while it was used" in line
        assert operator.ask("GET", "/readyz")[0] == 503
        assert operator.ask("GET", f"/api/v1/commands/{running['executionId']}")[1]["status"] == "SENT"
        assert operator.ask("GET", "/api/v1/commands")[1]["executions"] == [running]
        broker.process.terminate()
        assert broker.process.wait(10) == 0


async def see(address, name):
    """Let the broker know a thing."""
    client = await RawClient.connected(address, name)
    await client.subscribe(TOPICS.request_filter(name))
    await client.close()


def refused(directory):
    """What ``thingctl serve`` says, and how it ends, when it does not start."""
    ports = ("--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0")
    command = (BIN / "thingctl", "serve", "--open", *ports, "--data-dir", directory)
    with process(*command, THINGCTL_ADMIN_TOKEN=TOKEN) as broker:
        return broker.wait(20), output(broker)


def test_a_damaged_database_is_refused_in_words(tmp_path):
    with serving(tmp_path) as broker:
        operator = Operator(broker)
        loop = asyncio.new_event_loop()
        device = loop.run_until_complete(RawClient.connected(broker.mqtt_address, "lamp"))
        assert operator.send("something to damage")[0] == 201
        loop.run_until_complete(device.close())
        loop.close()
        broker.process.terminate()
        assert broker.process.wait(10) == 0
    path = tmp_path / "executions.db"
    damaged = path.read_bytes().replace(b"something to damage", b"something to d4mage")
    path.write_bytes(damaged)
    code, said = refused(tmp_path)
    assert code == 2
    assert f"thingctl: {path} is damaged" in said.replace("\n", " ")
    assert "It was left as it is." in said
    assert "Traceback" not in said
    assert path.read_bytes() == damaged


def test_a_second_broker_on_the_same_directory_is_refused_in_words(tmp_path):
    with serving(tmp_path):
        code, said = refused(tmp_path)
    assert code == 2
    assert f"another broker is using the data directory {tmp_path}" in said
    assert "Traceback" not in said
