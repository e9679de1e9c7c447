"""Two workers on one cluster and one database: they share, and each carries on for the other."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from agent.harness import mosquitto
from support.operators import Operator
from support.paho import paho
from support.postgres import PostgresServer
from support.processes import TOKEN, Serving, output, until_said
from support.waits import soon
from support.workers import ROOT, Cluster, starting, working

pytestmark = pytest.mark.system

THINGS = [f"thing-{n}" for n in range(20)]
COMMANDS = 1500


class Fleet:
    """All things in one client: each request is answered once, and how often it came is counted."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()

    def prepare(self, client) -> None:
        client.max_inflight_messages_set(1000)
        client.on_message = self.on_message

    def on_message(self, client, _data, message) -> None:
        execution_id = message.topic.split("/")[-2]
        self.requests[execution_id] += 1
        client.publish(message.topic.removesuffix("request") + "response", b'{"status":"SUCCEEDED"}', 1)


@contextmanager
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    things = Fleet()
    # Its session is kept: what comes while it is being connected again is not lost.
    with paho(cluster.address, "fleet", prepare=things.prepare, clean_session=False) as client:
        client.listen(f"{ROOT}/things/+/executions/+/request")
        yield things


@pytest.fixture
def cluster(postgres, tmp_path) -> Iterator[Cluster]:
    with mosquitto(tmp_path) as broker, postgres.database() as url:
        yield Cluster(broker, postgres, url)


@pytest.fixture
def workers(cluster, tmp_path) -> Iterator[tuple[Serving, Serving]]:
    with working(cluster, tmp_path, "w1", "--open") as one, working(cluster, tmp_path, "w2", "--open") as two:
        yield one, two
        for worker in (one, two):
            if worker.process.poll() is None:
                said = output(worker.process)
                assert "Traceback" not in said, said


@pytest.fixture
def operators(workers) -> Iterator[tuple[Operator, Operator]]:
    both = Operator(workers[0].http_address), Operator(workers[1].http_address)
    yield both
    for operator in both:
        operator.close()


def metric(worker: Serving, line: str) -> float:
    """One figure of ``/metrics``."""
    connection = HTTPConnection(*worker.http_address, timeout=20)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    text = connection.getresponse().read().decode()
    connection.close()
    found = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
    return float(found[0]) if found else 0.0


class Senders:
    """Callers that send until all is accepted: what one worker does not answer they ask another."""

    def __init__(self, workers: tuple[Serving, ...]) -> None:
        self._workers = workers
        self._addresses = [worker.http_address for worker in workers]
        self.accepted: dict[str, str] = {}
        self._lock = threading.Lock()

    def _outputs(self) -> str:
        return "\n".join(output(worker.process)[-5000:] for worker in self._workers)

    def send(self, first: int, step: int, count: int) -> None:
        connections: dict[int, HTTPConnection] = {}
        for n in range(first, count, step):
            self._send_one(n, connections)
        for connection in connections.values():
            connection.close()

    def _send_one(self, n: int, connections: dict[int, HTTPConnection]) -> None:
        body = json.dumps(
            {"thingId": THINGS[n % len(THINGS)], "action": "go", "params": {"n": n}, "ttl": 120}
        )
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Idempotency-Key": f"key-{n}",
        }
        for attempt in range(400):
            which = (n + attempt) % len(self._addresses)
            connection = connections.get(which)
            if connection is None:
                connection = connections[which] = HTTPConnection(*self._addresses[which], timeout=15)
            try:
                connection.request("POST", "/api/v1/commands", body, headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, HTTPException, ValueError):
                connections.pop(which).close()
            else:
                if response.status == 201:
                    with self._lock:
                        self.accepted[f"key-{n}"] = answer["executionId"]
                    return
                assert response.status in {429, 503}, f"{answer}\n{self._outputs()}"
            threading.Event().wait(0.05)
        raise AssertionError(f"command {n} was accepted by nobody")


def answers(operator: Operator, path: str) -> int:
    """The status that is answered; 0: nobody answers."""
    try:
        return operator.call("GET", path).status
    except OSError:
        operator.close()
        return 0


def executions(operator: Operator) -> dict[str, dict]:
    found, cursor = {}, ""
    while cursor is not None:
        page = operator.call("GET", f"/api/v1/commands?limit=500{cursor and '&cursor='}{cursor}").body
        found |= {execution["executionId"]: execution for execution in page["executions"]}
        cursor = page["nextCursor"]
    return found


def ends_in_audit(folder: Path) -> Counter[str]:
    """How often each execution has ended, by the audit files of all workers."""
    ends: Counter[str] = Counter()
    for path in folder.glob("w*/audit.log"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record.get("event") == "command.ended":
                ends[record["executionId"]] += 1
    return ends


def all_ended(operator: Operator, senders: Senders) -> bool:
    found = executions(operator)
    return all(found.get(one, {}).get("status") == "SUCCEEDED" for one in senders.accepted.values())


def test_two_workers_share_the_work_and_one_killed_loses_nothing(cluster, workers, operators, tmp_path):
    senders = Senders(workers)
    with fleet(cluster) as things, ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(senders.send, first, 4, COMMANDS) for first in range(4)]
        soon(lambda: len(senders.accepted) >= COMMANDS // 3, 60)
        shared = [metric(worker, 'thingctl_responses_total{kind="applied"}') for worker in workers]
        workers[0].process.send_signal(signal.SIGKILL)
        for each in sending:
            each.result(120)
        assert len(senders.accepted) == COMMANDS
        soon(lambda: all_ended(operators[1], senders), 60)
        found = executions(operators[1])
        assert min(shared) > 0, "both have taken responses"
        assert set(found) == set(senders.accepted.values()), (
            "a key stands for one execution, whoever was asked"
        )
        assert set(things.requests) == set(found), "each has come to its thing"
        assert {execution["status"] for execution in found.values()} == {"SUCCEEDED"}
    soon(lambda: len(ends_in_audit(tmp_path)) > COMMANDS // 2)
    assert max(ends_in_audit(tmp_path).values()) == 1, "none has ended twice"
    said = output(workers[1].process)
    assert "its session is taken over" in said
    assert "Traceback" not in said, said


def test_the_database_ends_and_comes_back_and_nothing_is_lost(tmp_path):
    server = PostgresServer(fsync=True)
    try:
        with mosquitto(tmp_path) as broker, server.database() as url:
            cluster = Cluster(broker, server, url)
            with working(cluster, tmp_path, "w1", "--open") as worker, fleet(cluster) as things:
                senders = Senders((worker,))
                with ThreadPoolExecutor(2) as pool:
                    sending = [pool.submit(senders.send, first, 2, 400) for first in range(2)]
                    soon(lambda: len(senders.accepted) >= 100, 60)
                    server.stop(hard=True)
                    operator = Operator(worker.http_address)
                    soon(lambda: operator.call("GET", "/readyz").status == 503, 30)
                    server.start()
                    soon(lambda: operator.call("GET", "/readyz").status == 200, 30)
                    for each in sending:
                        each.result(120)
                soon(lambda: all_ended(operator, senders), 60)
                assert set(executions(operator)) == set(senders.accepted.values()) == set(things.requests)
                operator.close()
                said = output(worker.process)
                assert "Traceback" not in said, said
    finally:
        server.close()


def test_the_cluster_is_away_and_commands_wait(cluster, workers, operators):
    cluster.mosquitto.stop()
    soon(lambda: operators[0].call("GET", "/readyz").status == 503, 30)
    execution_id = operators[0].send("thing-1", "go")
    assert operators[1].get(execution_id)["delivery"] == "QUEUED"
    cluster.mosquitto.start()
    with fleet(cluster):
        assert operators[1].until(execution_id, "SUCCEEDED", 60)["attempts"] == 1


def test_a_worker_that_starts_while_the_cluster_is_away_takes_commands(cluster, tmp_path):
    cluster.mosquitto.stop()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with starting(cluster, tmp_path, "w1", "--open", "--http", f"127.0.0.1:{port}") as started:
        operator = Operator(("127.0.0.1", port))
        soon(lambda: answers(operator, "/healthz") == 200, 30)
        assert answers(operator, "/readyz") == 503
        execution_id = operator.send("thing-1", "go")
        assert operator.get(execution_id)["delivery"] == "QUEUED"
        cluster.mosquitto.start()
        with fleet(cluster):
            operator.until(execution_id, "SUCCEEDED", 60)
        until_said(started, "\ndata ")
        operator.close()


def test_what_is_done_at_one_worker_holds_at_the_other_at_once(cluster, workers, operators):
    one, two = operators
    assert one.call("POST", "/api/v1/things", {"name": "lamp", "tags": ["new"]}).status == 201
    assert two.call("POST", "/api/v1/commands", {"thingId": "lamp", "action": "x"}).status == 201
    assert two.call("POST", "/api/v1/things", {"name": "lamp"}).status == 409
    assert one.call("PATCH", "/api/v1/things/lamp", {"enabled": False}).status == 200
    soon(lambda: two.call("POST", "/api/v1/commands", {"thingId": "lamp", "action": "x"}).status == 409)
    made = one.call("POST", "/api/v1/tokens", {"name": "ci", "scopes": ["commands:read"]})
    assert made.status == 201
    with_token = Operator(workers[1].http_address, token=made.body["token"])
    assert with_token.call("GET", "/api/v1/commands").status == 200
    assert one.call("DELETE", "/api/v1/tokens/ci").status == 204
    soon(lambda: with_token.call("GET", "/api/v1/commands").status == 401)
    with_token.close()
    assert one.call("DELETE", "/api/v1/things/lamp").status == 204
    soon(lambda: two.call("GET", "/api/v1/things/lamp").status == 404)


def test_a_caller_at_one_worker_hears_of_what_the_other_has_sent(cluster, workers, operators):
    one, two = operators
    connection = HTTPConnection(*workers[1].http_address, timeout=30)
    connection.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {TOKEN}"})
    stream = connection.getresponse()
    execution_id = one.send("thing-2", "go", ttl=60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(two.call, "GET", f"/api/v1/commands/{execution_id}?wait=30")
        with fleet(cluster):
            assert waiting.result(40).body["status"] == "SUCCEEDED"
    told = []
    while not told or told[-1]["status"] != "SUCCEEDED":
        line = stream.readline().decode()
        if line.startswith("data: ") and "executionId" in line:
            told.append(json.loads(line[6:]))
    assert {each["executionId"] for each in told} == {execution_id}
    connection.close()


def test_a_rollout_goes_on_when_its_worker_has_died(cluster, workers, operators):
    one, two = operators
    names = [f"roll-{n}" for n in range(60)]
    for name in names:
        assert one.call("POST", "/api/v1/things", {"name": name}).status == 201
    with fleet(cluster) as things:
        begun = one.call(
            "POST",
            "/api/v1/commands",
            {"targets": {"things": names}, "action": "go", "rollout": {"rate": 10}, "ttl": 120},
        )
        assert begun.status == 202, begun
        path = f"/api/v1/groups/{begun.body['commandId']}"
        soon(lambda: two.call("GET", path).body["ended"] >= 5, 30)
        workers[0].process.send_signal(signal.SIGKILL)
        workers[0].process.wait()
        soon(lambda: two.call("GET", path).body["state"] == "FINISHED", 60)
        soon(lambda: two.call("GET", path).body["percent"] == 100.0, 30)
        assert two.call("GET", path).body["statuses"] == {"SUCCEEDED": 60}
        assert len(things.requests) == 60, "nobody got it twice"


def test_a_worker_that_stops_hands_over_at_once(cluster, workers, operators):
    with fleet(cluster):
        workers[0].process.send_signal(signal.SIGTERM)
        assert workers[0].process.wait(15) == 0
        began = operators[1].send("thing-3", "go")
        operators[1].until(began, "SUCCEEDED", 5)
    assert "taken over" not in output(workers[1].process)
