"""A device written with bare paho-mqtt that knows only Fleets' two topics."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import paho.mqtt.client as mqtt
import pytest

from support.links import LINKS, Linked, linked
from support.operators import Operator
from support.waits import soon

pytestmark = pytest.mark.system

THING = "device-1"
COMMANDS = 5000


class Device:
    """Answers every request with its params. What Fleets' documentation shows, and no more."""

    def __init__(self, broker: Linked, *, clean: bool) -> None:
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, THING, clean_session=clean)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe(broker.filter(THING), 1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._on_message
        self.subscribed = threading.Event()
        self.connections = 0
        self.requests: list[str] = []
        self.client.on_pre_connect = self._count
        self.client.connect(*broker.mqtt_address, keepalive=30)
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def _count(self, *_: object) -> None:
        self.connections += 1

    def _on_message(self, client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        request = json.loads(message.payload)
        self.requests.append(request["commandId"])
        answer = {"status": "SUCCEEDED", "result": request["params"]}
        client.publish(message.topic.removesuffix("request") + "response", json.dumps(answer), 1)

    def lose_connection(self) -> None:
        """As a device does that goes out of reach; paho connects again by itself."""
        self.client.socket().shutdown(2)


@contextmanager
def device(broker: Linked, *, clean: bool = True) -> Iterator[Device]:
    started = Device(broker, clean=clean)
    try:
        yield started
    finally:
        started.client.disconnect()
        started.client.loop_stop()
        started.client._reset_sockets()


@pytest.fixture(params=LINKS)
def broker(request, tmp_path) -> Iterator[Linked]:
    server = request.getfixturevalue("postgres") if request.param == "cluster" else None
    with linked(request.param, tmp_path, server) as broker:
        yield broker


def send_many(broker: Linked, count: int, callers: int) -> list[str]:
    """Send ``count`` commands over ``callers`` connections at a time; return their executions' ids."""

    def some(first: int) -> list[str]:
        operator = Operator(broker.http_address)
        try:
            ids = []
            for i in range(first, count, callers):
                while True:
                    answer = operator.call(
                        "POST",
                        "/api/v1/commands",
                        {"thingId": THING, "action": "echo", "params": {"i": i}, "ttl": 120},
                    )
                    if answer.status not in {429, 503}:
                        break
                    time.sleep(0.05)  # more wait for the thing than may
                assert answer.status == 201, answer
                ids.append(answer.body["executionId"])
            return ids
        finally:
            operator.close()

    with ThreadPoolExecutor(callers) as pool:
        return [execution_id for ids in pool.map(some, range(callers)) for execution_id in ids]


def all_with(broker: Linked, status: str) -> list[dict]:
    """Every execution of the thing that has ``status``."""
    operator, found, cursor = Operator(broker.http_address), [], ""
    try:
        while cursor is not None:
            path = f"/api/v1/commands?thingId={THING}&status={status}&limit=500"
            page = operator.call("GET", path + (f"&cursor={quote(cursor)}" if cursor else "")).body
            found += page["executions"]
            cursor = page["nextCursor"]
        return found
    finally:
        operator.close()


def test_5000_commands_on_one_connection(broker):
    with device(broker) as it:
        began = time.monotonic()
        ids = send_many(broker, COMMANDS, callers=4)
        soon(lambda: len(it.requests) >= COMMANDS, 60)
        soon(lambda: len(all_with(broker, "SUCCEEDED")) == COMMANDS, 30)
        print(f"{COMMANDS / (time.monotonic() - began):.0f} commands/s")
        executions = {execution["executionId"]: execution for execution in all_with(broker, "SUCCEEDED")}
        assert set(executions) == set(ids)
        assert it.connections == 1
        assert len(it.requests) == COMMANDS, "each came once"
    operator = Operator(broker.http_address)
    first, last = operator.get(ids[0]), operator.get(ids[-1])
    operator.close()
    assert first["result"] == first["params"]
    assert last["delivery"] == "STARTED"


@pytest.mark.parametrize("clean", [True, False])
def test_nothing_is_lost_across_reconnects(broker, clean):
    if clean and broker.link == "cluster":
        pytest.skip("a cluster forgets what was on its way to a session that is not kept")
    count = 1000
    with device(broker, clean=clean) as it, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_many, broker, count, 2)
        for connections, at in enumerate((100, 400, 700), 2):
            soon(lambda at=at: len(it.requests) >= at, 30)
            it.lose_connection()
            # What the kernel holds is still read: without this wait two losses may be one.
            soon(lambda connections=connections: it.connections == connections, 30)
        ids = sending.result(60)
        soon(lambda: len(all_with(broker, "SUCCEEDED")) == count, 60)
        assert {execution["executionId"] for execution in all_with(broker, "SUCCEEDED")} == set(ids)
        assert it.connections == 4
        assert len(set(it.requests)) == count, "each came at least once"


def test_what_was_sent_while_the_device_was_away_comes_when_it_is_back(broker):
    with device(broker, clean=False):
        pass
    ids = send_many(broker, 20, callers=1)
    operator = Operator(broker.http_address)
    # A cluster takes what is for a kept session; a broker of our own keeps it in its table.
    assert operator.get(ids[0])["delivery"] == ("PUBLISHED" if broker.link == "cluster" else "QUEUED")
    with device(broker, clean=False) as it:
        for execution_id in ids:
            operator.until(execution_id, "SUCCEEDED")
        assert len(it.requests) == 20
    operator.close()
