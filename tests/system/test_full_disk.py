"""A disk that fills up at any moment: what was answered with 2xx is there after kill -9, what was refused is not.

``THINGCTL_FULL_DISK`` is the number of rounds (kill -9 and a restart in each), ``THINGCTL_SEED`` the seed.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from agent.harness import mosquitto
from support.disks import FailingFlush, SmallDisk, small_disk
from support.operators import Answer, Operator
from support.processes import BIN, TOKEN, Serving, output, process, serving
from support.waits import soon
from support.workers import Cluster, working

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("THINGCTL_FULL_DISK", "4"))
CALLS = 150
"""Of one round."""

PART = 1_000_000
"""Numbers of one load."""

API = "/api/v1"
LIVE = {"QUEUED", "SENT", "DELIVERED", "IN_PROGRESS"}


class Load:
    """Calls of every kind that changes something, and plain dicts of what was answered."""

    def __init__(self, seed: int, part: int = 0) -> None:
        """``part``: of several loads at the same time; each has numbers, and so names, of its own."""
        self.random = random.Random(seed)
        self.count = self.first = part * PART
        self.answered: dict[int, int] = {}
        """How many calls, by status."""
        self.things: dict[str, dict[str, Any]] = {}
        self.passwords: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.revoked: list[str] = []
        self.executions: dict[str, int] = {}
        """The number in the params, by id."""
        self.canceled: set[str] = set()
        self.not_canceled: set[str] = set()
        self.refused: set[int] = set()
        """Numbers of commands that were answered with 503."""
        self.keys: dict[str, tuple[dict[str, Any], str]] = {}
        self.groups: dict[str, tuple[int, str]] = {}
        """The number in the params, and the state, by id."""

    def fresh(self) -> int:
        self.count += 1
        return self.count

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        answer = self.operator.call(method, API + path, body, **headers)
        self.answered[answer.status] = self.answered.get(answer.status, 0) + 1
        assert answer.status in {200, 201, 202, 204, 409, 503}, (method, path, body, answer)
        return answer

    def step(self, operator: Operator) -> None:
        self.operator = operator
        kind = self.random.choice(
            [self.send] * 4
            + [self.send_with_key, self.repeat, self.cancel, self.add, self.patch, self.remove]
            + [self.password, self.put_type, self.remove_type, self.make_token, self.revoke]
            + [self.begin_group, self.move_group, self.move_group]
        )
        kind()

    # Commands.

    def command(self, number: int) -> dict[str, Any]:
        size = self.random.choice([10, 10, 3000, 30_000])
        params = {"number": number, "filler": "x" * size}
        return {"thingId": "lamp", "action": "turnOn", "params": params, "ttl": 3600}

    def send(self) -> None:
        number = self.fresh()
        answer = self.call("POST", "/commands", self.command(number))
        if answer.status == 201:
            self.executions[answer.body["executionId"]] = number
        else:
            self.refused.add(number)

    def send_with_key(self) -> None:
        number = self.fresh()
        body = self.command(number)
        key = f"key-{number}"
        answer = self.call("POST", "/commands", body, **{"Idempotency-Key": key})
        if answer.status == 201:
            self.executions[answer.body["executionId"]] = number
            self.keys[key] = (body, answer.body["executionId"])
        else:
            self.refused.add(number)

    def repeat(self) -> None:
        if self.keys:
            key, (body, execution_id) = self.random.choice(list(self.keys.items()))
            answer = self.call("POST", "/commands", body, **{"Idempotency-Key": key})
            assert answer.status == 503 or answer.body["executionId"] == execution_id

    def cancel(self) -> None:
        live = [found for found in self.executions if found not in self.canceled]
        if live:
            execution_id = self.random.choice(live)
            answer = self.call("POST", f"/commands/{execution_id}/cancel")
            if answer.status == 200:
                self.canceled.add(execution_id)
                self.not_canceled.discard(execution_id)
            else:
                self.not_canceled.add(execution_id)

    # Things.

    def add(self) -> None:
        name = f"thing-{self.fresh()}"
        text = "x" * self.random.choice([0, 500])
        password = f"password-of-{name}"
        body = {"name": name, "description": text, "password": password}
        if self.call("POST", "/things", body).status == 201:
            self.things[name] = {"description": text, "enabled": True}
            self.passwords[name] = password

    def some_thing(self) -> str | None:
        return self.random.choice(sorted(self.things)) if self.things else None

    def patch(self) -> None:
        if name := self.some_thing():
            changed = {"description": f"{self.fresh()}" + "y" * 400, "enabled": self.random.random() < 0.8}
            if self.call("PATCH", f"/things/{name}", changed).status == 200:
                self.things[name] = changed

    def remove(self) -> None:
        if (name := self.some_thing()) and self.call("DELETE", f"/things/{name}").status == 204:
            del self.things[name], self.passwords[name]

    def password(self) -> None:
        if name := self.some_thing():
            given = f"password-number-{self.fresh()}"
            body = {"password": given, "oldValidFor": 0}
            if self.call("POST", f"/things/{name}/password", body).status == 200:
                self.passwords[name] = given

    # Thing types and tokens.

    def put_type(self) -> None:
        name = f"type-{self.first + self.random.randrange(20)}"
        text = f"{self.fresh()}" + "z" * 500
        if self.call("PUT", f"/thing-types/{name}", {"description": text}).status in {200, 201}:
            self.types[name] = text

    def remove_type(self) -> None:
        if self.types:
            name = self.random.choice(sorted(self.types))
            if self.call("DELETE", f"/thing-types/{name}").status == 204:
                del self.types[name]

    def make_token(self) -> None:
        name = f"token-{self.fresh()}"
        answer = self.call("POST", "/tokens", {"name": name, "scopes": ["commands:read"]})
        if answer.status == 201:
            self.tokens[name] = answer.body["token"]

    def revoke(self) -> None:
        if self.tokens:
            name = self.random.choice(sorted(self.tokens))
            if self.call("DELETE", f"/tokens/{name}").status == 204:
                self.revoked.append(self.tokens.pop(name))

    # Commands to many things.

    def begin_group(self) -> None:
        number = self.fresh()
        body = {
            "targets": {"things": ["lamp", "bulb", "blind"]},
            "action": "update",
            "params": {"number": number},
            "ttl": 3600,
            "rollout": {"batch": 1},
        }
        answer = self.call("POST", "/commands", body)
        if answer.status == 202:
            self.groups[answer.body["commandId"]] = (number, "RUNNING")
        else:
            self.refused.add(number)

    def move_group(self) -> None:
        movable = [(found, told) for found, told in self.groups.items() if told[1] != "CANCELED"]
        if movable:
            command_id, (number, state) = self.random.choice(movable)
            moves = {"RUNNING": ["pause", "cancel"], "PAUSED": ["resume", "cancel"]}
            move = self.random.choice(moves[state])
            answer = self.call("POST", f"/groups/{command_id}/{move}")
            if answer.status == 200:
                states = {"pause": "PAUSED", "resume": "RUNNING", "cancel": "CANCELED"}
                self.groups[command_id] = (number, states[move])

    def is_mine(self, number: object) -> bool:
        """Whether a number, or a name with one, belongs to this load."""
        return self.first <= int(str(number).rpartition("-")[2]) < self.first + PART

    # What is there.

    def check(self, operator: Operator) -> None:
        """Hold the answers against what the broker shows."""
        shown = {thing["name"]: thing for thing in every(operator, "things")}
        for name in ("lamp", "bulb", "blind"):
            shown.pop(name)
        assert {
            name: {"description": thing.get("description", ""), "enabled": thing.get("enabled", True)}
            for name, thing in shown.items()
            if self.is_mine(name)
        } == self.things
        for name, password in self.passwords.items():
            body = {"username": name, "password": password, "peerhost": "127.0.0.1"}
            verdict = operator.call("POST", f"{API}/mqtt/authentication", body)
            right = "allow" if self.things[name]["enabled"] else "deny"
            assert verdict.body["result"] == right, (name, verdict)
        types = {found["name"]: found.get("description", "") for found in every(operator, "thing-types")}
        assert {name: text for name, text in types.items() if self.is_mine(name)} == self.types
        self.check_tokens(operator)
        self.check_executions(operator)
        for command_id, (_, state) in self.groups.items():
            group = operator.call("GET", f"{API}/groups/{command_id}").body
            assert (group["state"], group["targeted"]) == (state, 3), group

    def check_tokens(self, operator: Operator) -> None:
        names = {token["name"] for token in every(operator, "tokens")}
        assert {name for name in names - {"admin"} if self.is_mine(name)} == set(self.tokens)
        for secret in self.tokens.values():
            with closing(operator.another(secret)) as holder:
                assert holder.call("GET", f"{API}/me").status == 200
        for secret in self.revoked[-5:]:
            with closing(operator.another(secret)) as holder:
                assert holder.call("GET", f"{API}/me").status == 401

    def check_executions(self, operator: Operator) -> None:
        shown = {
            found["executionId"]: found
            for found in every(operator, "commands")
            if self.is_mine(found["params"]["number"])
        }
        plain = {found for found, execution in shown.items() if execution["action"] == "turnOn"}
        assert plain == set(self.executions)
        for execution_id, number in self.executions.items():
            assert shown[execution_id]["params"]["number"] == number
            is_canceled = shown[execution_id]["status"] == "CANCELED"
            assert is_canceled == (execution_id in self.canceled), shown[execution_id]
        for found in shown.values():
            assert found["params"]["number"] not in self.refused
        for key, (body, execution_id) in list(self.keys.items())[-10:]:
            answer = operator.call("POST", f"{API}/commands", body, **{"Idempotency-Key": key})
            assert answer.body["executionId"] == execution_id


def every(operator: Operator, collection: str) -> list[dict[str, Any]]:
    """All pages of a collection."""
    field = {"commands": "executions", "thing-types": "thingTypes"}.get(collection, collection)
    found: list[dict[str, Any]] = []
    query = "limit=100"
    while True:
        answer = operator.call("GET", f"{API}/{collection}?{query}")
        assert answer.status == 200, answer
        found += answer.body[field]
        if not answer.body.get("cursor"):
            return found
        query = f"limit=100&cursor={answer.body['cursor']}"


def test_what_was_answered_is_there_and_what_was_refused_is_not(tmp_path):
    load = Load(int(os.environ.get("THINGCTL_SEED", "7")))
    with small_disk(tmp_path, "16m") as disk:
        for turn in range(ROUNDS):
            with serving(disk.path, enrolment="--closed") as broker:
                with closing(Operator(broker.http_address)) as operator:
                    if turn == 0:
                        for name in ("lamp", "bulb", "blind"):
                            assert operator.call("POST", f"{API}/things", {"name": name}).status == 201
                    load.check(operator)
                    for _ in range(CALLS):
                        chance = load.random.random()
                        if chance < 0.06:
                            disk.clear()
                            disk.fill(load.random.choice([0, 0, 4096, 8192, 20_000, 100_000]))
                        elif chance < 0.1:
                            disk.clear()
                        load.step(operator)
                    if turn % 2:  # the other times it ends on whatever disk there is
                        disk.clear()
                        soon(lambda: accepts(load, operator))
                        load.check(operator)
                broker.process.kill()
                broker.process.wait()
                assert "Traceback" not in output(broker.process), output(broker.process)
            disk.clear()
        with (
            serving(disk.path, enrolment="--closed") as broker,
            closing(Operator(broker.http_address)) as operator,
        ):
            load.check(operator)
    print(load.answered)
    assert load.answered[503] > 20
    assert load.answered[201] > 20


@contextmanager
def filled_and_cleared(disk: SmallDisk, chance: random.Random) -> Iterator[None]:
    """Fill the disk and make room again, many times; there is room in the end."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(chance.random() * 0.02):
            disk.clear()
            if chance.random() < 0.7:
                disk.fill(chance.choice([0, 4096, 20_000, 100_000]))
        disk.clear()

    filler = threading.Thread(target=work)
    filler.start()
    try:
        yield
    finally:
        stop.set()
        filler.join()


def test_calls_at_the_same_time_share_no_answer(tmp_path):
    """Several changes go into one commit: when it fails, each of their callers is refused, and only they."""
    seed = int(os.environ.get("THINGCTL_SEED", "7"))
    loads = [Load(seed + part, part) for part in range(6)]

    def call(load: Load, broker: Serving) -> None:
        with closing(Operator(broker.http_address)) as operator:
            for _ in range(CALLS // 2):
                load.step(operator)

    with small_disk(tmp_path, "24m") as disk, ThreadPoolExecutor(len(loads)) as pool:
        for turn in range(max(2, ROUNDS // 2)):
            with serving(disk.path, enrolment="--closed") as broker:
                with closing(Operator(broker.http_address)) as operator:
                    for name in ("lamp", "bulb", "blind") if turn == 0 else ():
                        assert operator.call("POST", f"{API}/things", {"name": name}).status == 201
                    with filled_and_cleared(disk, random.Random(seed)):
                        for one in [pool.submit(call, load, broker) for load in loads]:
                            one.result()
                    for load in loads:
                        load.check(operator)
                broker.process.kill()
                broker.process.wait()
                assert "Traceback" not in output(broker.process), output(broker.process)
        with (
            serving(disk.path, enrolment="--closed") as broker,
            closing(Operator(broker.http_address)) as operator,
        ):
            for load in loads:
                load.check(operator)
    answered = {
        status: sum(load.answered.get(status, 0) for load in loads)
        for status in sorted({status for load in loads for status in load.answered})
    }
    print(answered)
    assert answered[503] > 20
    assert answered[201] > 20


def test_a_broker_that_cannot_start_on_a_full_disk_says_so_and_starts_when_there_is_room(tmp_path):
    ended = 0
    with small_disk(tmp_path, "12m") as disk:
        for free in (0, 8192, 16_384, 32_768, 65_536, 98_304):
            shutil.rmtree(disk.path, ignore_errors=True)
            disk.fill(free)
            ports = ("--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0")
            command = (BIN / "thingctl", "serve", "--open", *ports, "--data-dir", disk.path)
            with process(*command, THINGCTL_ADMIN_TOKEN=TOKEN) as started:
                soon(lambda one=started: one.poll() is not None or "\ndata " in output(one), 20)
                said = output(started)
                assert "Traceback" not in said, said
                if started.poll() is not None:
                    ended += 1
                    assert started.poll() == 2
                    last = said.splitlines()[-1]
                    assert last.startswith("thingctl: "), said
                    assert str(disk.path) in last
                    assert re.search("full|No space left on device", last), said
            left = [path.name for path in disk.path.glob("*.new*")] if disk.path.exists() else []
            assert left == []
            disk.clear()
            with serving(disk.path):
                pass
    assert ended > 0


@pytest.mark.parametrize("free", [0, 4096])
def test_a_broker_with_its_files_starts_on_a_full_disk_and_accepts_when_there_is_room(tmp_path, free):
    """Nothing need be written at a start: operators see what there is, and a 503 where a change cannot be kept."""
    body = {"thingId": "lamp", "action": "x", "params": {"text": "a" * 8192}}
    with small_disk(tmp_path, "12m") as disk:
        with serving(disk.path) as broker, closing(Operator(broker.http_address)) as operator:
            assert operator.call("POST", f"{API}/things", {"name": "lamp"}).status == 201
            assert operator.call("POST", f"{API}/commands", body).status == 201
        disk.fill(free)
        with serving(disk.path) as broker, closing(Operator(broker.http_address)) as operator:
            assert operator.call("GET", f"{API}/things").status == 200
            refused = operator.call("POST", f"{API}/commands", body)
            assert refused.status == 503
            assert operator.call("POST", f"{API}/things", {"name": "bulb"}).status == 503
            disk.clear()
            soon(lambda: operator.call("POST", f"{API}/commands", body).status == 201, 20)
            assert operator.call("POST", f"{API}/things", {"name": "bulb"}).status == 201
            assert "Traceback" not in output(broker.process)
        with serving(disk.path) as broker, closing(Operator(broker.http_address)) as operator:
            assert operator.call("GET", f"{API}/things/bulb").status == 200
            listed = operator.call("GET", f"{API}/commands").body["executions"]
            assert len(listed) == 2


def test_a_last_flush_that_fails_leaves_tokens_and_roll_outs_as_they_were(tmp_path):
    with FailingFlush(tmp_path) as fault, ExitStack() as stack:
        broker = stack.enter_context(serving(tmp_path / "data", **fault.environment))
        operator = stack.enter_context(closing(Operator(broker.http_address)))
        for name in ("one", "two"):
            assert operator.call("POST", f"{API}/things", {"name": name}).status == 201
        made = operator.call("POST", f"{API}/tokens", {"name": "kept", "scopes": ["commands:read"]})
        begun = operator.call("POST", f"{API}/commands", group())
        command_id = begun.body["commandId"]
        pause, group_path = f"{API}/groups/{command_id}/pause", f"{API}/groups/{command_id}"
        fault.begin()
        refused = [
            operator.call("POST", f"{API}/tokens", {"name": "refused", "scopes": ["commands:read"]}),
            operator.call("DELETE", f"{API}/tokens/kept"),
            operator.call("POST", f"{API}/tokens/kept/renew"),
            operator.call("POST", f"{API}/commands", group()),
            operator.call("POST", pause),
        ]
        assert [answer.status for answer in refused] == [503] * 5, refused
        fault.end()

        def is_as_it_was(shown: Operator) -> None:
            assert {token["name"] for token in every(shown, "tokens")} - {"admin"} == {"kept"}
            with closing(shown.another(made.body["token"])) as holder:
                assert holder.call("GET", f"{API}/me").status == 200
            assert [found["commandId"] for found in every(shown, "groups")] == [command_id]
            assert shown.call("GET", group_path).body["state"] == "RUNNING"

        is_as_it_was(operator)
        broker.process.kill()
        broker.process.wait()
        with serving(tmp_path / "data") as again, closing(Operator(again.http_address)) as shown:
            is_as_it_was(shown)
            again.process.terminate()  # a kill may leave one that is about to be replaced
            again.process.wait(10)
        files = [path.name for path in (tmp_path / "data").rglob(".*")]
        assert files == []


def group() -> dict[str, Any]:
    targets = {"things": ["one", "two"]}
    return {"targets": targets, "action": "update", "ttl": 3600, "rollout": {"batch": 1}}


def test_the_files_of_a_worker_on_a_full_disk(postgres, tmp_path):
    """A worker's table is elsewhere; its audit file is here."""
    with (
        small_disk(tmp_path, "2m") as disk,
        mosquitto(tmp_path) as broker,
        postgres.database() as url,
    ):
        cluster = Cluster(broker, postgres, url)
        folder = tmp_path / "workers"
        folder.mkdir()
        where = ("--open", "--data-dir", disk.path)
        disk.path.mkdir()
        with (
            working(cluster, folder, "w1", *where) as worker,
            closing(Operator(worker.http_address)) as operator,
        ):
            assert operator.call("POST", f"{API}/things", {"name": "lamp"}).status == 201
            disk.fill()
            sent = [operator.send("lamp", "turnOn", {"number": n, "x": "x" * 500}) for n in range(60)]
            soon(lambda: "the audit file cannot be written" in output(worker.process))
            disk.clear()
            sent.append(operator.send("lamp", "turnOn"))
            soon(lambda: "audit.lost" in (disk.path / "audit.log").read_text())
            for execution_id in sent:
                assert operator.get(execution_id)["thingId"] == "lamp"
        disk.fill()
        other = ("--open", "--data-dir", disk.path / "other")
        with (
            working(cluster, folder, "w2", *other) as worker,
            closing(Operator(worker.http_address)) as operator,
        ):
            operator.send("lamp", "turnOn")
            soon(lambda: "the audit file cannot be written" in output(worker.process))
            assert "Traceback" not in output(worker.process)


def accepts(load: Load, operator: Operator) -> bool:
    load.operator = operator
    before = len(load.executions)
    load.send()
    return len(load.executions) > before
