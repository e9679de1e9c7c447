"""The simulator against mosquitto, with a controller written by hand."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mqtt_wire
from direct_load import DirectLoad
from fleet import Fleet, arguments
from processes import BenchError, Child

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

BENCH = Path(__file__).parents[2] / "bench"


def start_fleet(port: int, *options: str) -> Child:
    argv = [sys.executable, str(BENCH / "fleet.py"), "--port", str(port), "--seconds", "60", *options]
    fleet = Child("fleet", argv)
    try:
        fleet.expect("ready", 20)
    except BenchError:
        fleet.stop()
        raise
    return fleet


class Controller:
    """A blocking MQTT client: sends requests, keeps every packet that comes back."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.rest = b""
        self.sock.sendall(mqtt_wire.connect(f"controller-{time.monotonic_ns()}"))
        self.sock.sendall(mqtt_wire.subscribe(1, "$emqx/commands/things/+/executions/+/response"))
        self.responses: list[tuple[str, dict[str, Any]]] = []

    def request(self, thing: str, execution_id: str, params: str = '{"value":1}') -> None:
        topic = f"$emqx/commands/things/{thing}/executions/{execution_id}/request"
        payload = f'{{"commandId":"c","action":"a","params":{params},"timestamp":1,"ttl":60}}'
        self.sock.sendall(mqtt_wire.publish(topic, payload.encode(), 1))

    def collect(self, count: int, seconds: float = 5.0) -> list[tuple[str, dict[str, Any]]]:
        """Read until there are so many responses or the time is over."""
        end = time.monotonic() + seconds
        while len(self.responses) < count and (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                self.rest += self.sock.recv(65536)
            except TimeoutError:
                break
            done = 0
            for first, body, done in mqtt_wire.packets(self.rest):
                if first & 0xF0 == mqtt_wire.PUBLISH:
                    assert first & 0x06 == 0x02, "QoS 1"
                    size = int.from_bytes(self.rest[body : body + 2], "big")
                    topic = self.rest[body + 2 : body + 2 + size].decode()
                    self.sock.sendall(mqtt_wire.puback(self.rest[body + 2 + size : body + 4 + size]))
                    self.responses.append((topic, json.loads(self.rest[body + 4 + size : done])))
            self.rest = self.rest[done:]
        return self.responses


@pytest.fixture
def controller(mosquitto_port: int) -> Iterator[Controller]:
    made = Controller(mosquitto_port)
    yield made
    made.sock.close()


def test_every_request_is_answered_once_on_its_own_topic(mosquitto_port: int, controller: Controller) -> None:
    with start_fleet(mosquitto_port, "--things", "5") as fleet:
        for i in range(50):
            controller.request(f"thing-{i % 5:05d}", f"e{i}")
        got = controller.collect(50)
        report = fleet.ask("report")
    assert sorted(topic for topic, _ in got) == sorted(
        f"$emqx/commands/things/thing-{i % 5:05d}/executions/e{i}/response" for i in range(50)
    )
    assert {answer["status"] for _, answer in got} == {"SUCCEEDED"}
    assert (report["requests"], report["responses"], report["repeated"]) == (50, 50, 0)
    assert report["cpu_us_per_request"] > 0


def test_failing_things_say_so_and_silent_ones_nothing(mosquitto_port: int, controller: Controller) -> None:
    with start_fleet(mosquitto_port, "--things", "2", "--failing", "1"):
        controller.request("thing-00000", "f1")
        assert controller.collect(1)[0][1]["status"] == "FAILED"
    with start_fleet(mosquitto_port, "--things", "2", "--silent", "1") as fleet:
        controller.request("thing-00000", "s1")
        assert len(controller.collect(2, 0.3)) == 1
        report = fleet.ask("report")
        assert (report["requests"], report["responses"]) == (1, 0)


def test_slow_things_answer_after_the_time_they_were_told(
    mosquitto_port: int, controller: Controller
) -> None:
    with start_fleet(mosquitto_port, "--things", "1", "--slow-ms", "200"):
        start = time.monotonic()
        controller.request("thing-00000", "w1")
        assert len(controller.collect(1)) == 1
        assert 0.19 <= time.monotonic() - start < 2


def test_latencies_count_from_t0(mosquitto_port: int, controller: Controller) -> None:
    with start_fleet(mosquitto_port, "--things", "1") as fleet:
        t0 = time.monotonic_ns() - 1_000_000_000
        controller.request("thing-00000", "t1", params=f'{{"value":1,"t0":{t0}}}')
        controller.collect(1)
        report: dict[str, Any] = {}
        for _ in range(50):  # the broker's PUBACK may come after the controller's copy
            report = fleet.ask("report")
            if report["done_ms"]:
                break
            time.sleep(0.02)
        assert 1000 <= report["done_ms"]["p50"] < 3000


def test_a_dropped_fleet_comes_back_when_told(mosquitto_port: int, controller: Controller) -> None:
    with start_fleet(mosquitto_port, "--things", "20") as fleet:
        fleet.ask("drop", "dropped")
        assert fleet.ask("report")["subscribed"] == 0
        assert fleet.ask("connect", "ready")["things"] == 20
        controller.request("thing-00019", "r1")
        assert len(controller.collect(1)) == 1


def test_connections_open_no_faster_than_told(mosquitto_port: int) -> None:
    with start_fleet(mosquitto_port, "--things", "1") as fleet:
        assert fleet.alive
    argv = [str(BENCH / "fleet.py"), "--port", str(mosquitto_port), "--things", "50", "--rate", "100"]
    with Child("fleet", [sys.executable, *argv]) as fleet:
        assert fleet.expect("ready", 20)["seconds"] >= 0.45


@pytest.mark.parametrize("word", ["quit", None])
def test_it_ends_when_told_and_when_its_starter_is_gone(mosquitto_port: int, word: str | None) -> None:
    with start_fleet(mosquitto_port, "--things", "3") as fleet:
        if word:
            fleet.say(word)
        else:
            stdin = fleet._popen.stdin
            assert stdin is not None
            stdin.close()
        assert fleet.expect("end", 5)["requests"] == 0


def test_it_ends_by_itself(mosquitto_port: int) -> None:
    with start_fleet(mosquitto_port, "--things", "1", "--seconds", "0.5") as fleet:
        fleet.expect("end", 5)


def test_a_signal_ends_it_with_exit_code_0(mosquitto_port: int) -> None:
    assert start_fleet(mosquitto_port, "--things", "1").stop() == 0


def test_the_direct_controller_loses_nothing(mosquitto_port: int) -> None:
    with start_fleet(mosquitto_port, "--things", "10"):
        load = DirectLoad("127.0.0.1", mosquitto_port, 10)
        result = load.run(window=8, warmup=0.05, seconds=0.2)
        load.close()
    assert result["lost"] == result["stray"] == 0
    assert result["ended"] == {"SUCCEEDED": result["sent"], "FAILED": 0}
    assert 0 < result["executions"] <= result["sent"]
    assert result["latency_ms"]["p50"] > 0


def test_the_direct_controller_counts_what_was_lost(
    mosquitto_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("direct_load.LOST_AFTER", 0.3)
    with start_fleet(mosquitto_port, "--things", "4", "--silent", "1"):
        load = DirectLoad("127.0.0.1", mosquitto_port, 4)
        result = load.run(window=4, warmup=0.05, seconds=0.2)
        load.close()
    assert result["lost"] == 4


def test_telemetry_is_told_one_by_one_and_not_in_bursts() -> None:
    fleet = Fleet(
        arguments().parse_args(["--port", "1", "--no-control", "--things", "1", "--telemetry", "1000"])
    )
    try:
        fleet.connecting = False
        assert 0.0 <= fleet.tick() <= 0.001
    finally:
        fleet.epoll.close()
