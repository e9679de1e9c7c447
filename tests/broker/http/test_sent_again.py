"""The same command again, and commands that cannot be kept, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.http.running import AUTHORIZED, RunningApi, until
from thingctl_broker.testing import InMemoryJournal


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


COMMANDS = "/api/v1/commands"
TURN_ON = {"thingId": "lamp", "action": "turnOn", "params": {"level": 3}}


@pytest.fixture
def journal():
    return InMemoryJournal()


@pytest.fixture
def slow(journal):
    """An API whose disk does what the test says."""
    running = RunningApi(journal=journal)
    yield running
    running.close()


@pytest.fixture
def caller():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def post(api, body=TURN_ON, key=None, target=COMMANDS):
    return api.post(target, body, headers=AUTHORIZED | ({} if key is None else {"Idempotency-Key": key}))


def waits_for_the_disk(api, journal):
    """A request has come as far as the journal."""
    until(lambda: api.call(lambda: bool(journal._waiting)))


def not_accepted(reply):
    assert (reply.status, reply.json["type"]) == (503, "urn:thingctl:problem:not-accepting")
    assert int(reply.headers["retry-after"]) > 0


# Keys.


def test_the_same_command_with_the_same_key_is_sent_once(api):
    api.connect()
    first, second = post(api, key="k-1"), post(api, key="k-1")
    assert (first.status, second.status) == (201, 201)
    assert first.json == second.json
    assert first.link == second.link
    assert len(api.requested) == 1


def test_without_a_key_or_with_another_it_is_another_command(api):
    found = {post(api, key=key).json["executionId"] for key in (None, None, "a", "b")}
    assert len(found) == 4


def test_it_answers_with_the_execution_as_it_stands_now(api):
    api.connect()
    execution = post(api, key="k").json
    api.respond(execution, status="SUCCEEDED", result=[1])
    assert post(api, key="k").json["result"] == [1]
    assert post(api, key="k", target=f"{COMMANDS}?wait=5").status == 200


@pytest.mark.parametrize(
    "change",
    [{"thingId": "lock"}, {"action": "turnOff"}, {"params": {"level": 4}}, {"params": {}}, {"ttl": 60}],
)
def test_another_command_with_the_same_key_is_a_conflict(api, change):
    post(api, key="k")
    reply = post(api, TURN_ON | change, key="k")
    assert (reply.status, reply.json["type"]) == (409, "urn:thingctl:problem:idempotency-conflict")


def test_spacing_between_the_fields_does_not_matter_but_within_params_it_does(api):
    headers = AUTHORIZED | {"Idempotency-Key": "k", "Content-Type": "application/json"}
    one = b'{"thingId":"lamp","action":"turnOn","params":{"level":3}}'
    same = b'{ "action" : "turnOn", "params": {"level":3}, "thingId" : "lamp" }'
    other = b'{"thingId":"lamp","action":"turnOn","params":{"level": 3}}'
    assert [api.post(COMMANDS, body, headers=headers).status for body in (one, same, other)] == [
        201,
        201,
        409,
    ]


@pytest.mark.parametrize("key", ["", " ", "two words", "é", "x" * 256, "a\tb"])
def test_what_can_be_no_key_is_refused(api, key):
    headers = AUTHORIZED | {"Idempotency-Key": key.encode("latin-1")}
    reply = api.post(COMMANDS, TURN_ON, headers=headers)
    assert (reply.status, reply.json["type"]) == (400, "urn:thingctl:problem:invalid-header")
    assert "1 to 255 visible ASCII characters" in reply.json["detail"]
    assert len(api.executions()) == 0


@pytest.mark.parametrize("key", ["k", "x" * 255, '"7c9e6679-7425"', "~!{}"])
def test_what_can_be_a_key_is_one(api, key):
    assert post(api, key=key).json["executionId"] == post(api, key=key).json["executionId"]


def test_two_keys_are_refused(api):
    with api.raw() as sock:
        body = b'{"thingId":"lamp","action":"turnOn"}'
        head = "POST /api/v1/commands HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += f"Authorization: {AUTHORIZED['Authorization']}\r\nContent-Length: {len(body)}\r\n"
        head += "Idempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n"
        sock.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"two Idempotency-Key headers" in answer


# The disk.


def test_a_command_is_accepted_when_it_is_kept(slow, journal, caller):
    reply = caller.submit(post, slow)
    waits_for_the_disk(slow, journal)
    assert not reply.done()
    slow.call(journal.commit)
    assert reply.result().status == 201


@pytest.mark.parametrize("target", [COMMANDS, f"{COMMANDS}?wait=30"])
def test_a_command_that_could_not_be_kept_was_not_accepted(slow, journal, caller, target):
    slow.connect()
    reply = caller.submit(post, slow, target=target)
    waits_for_the_disk(slow, journal)
    slow.call(journal.fail)
    not_accepted(reply.result(5))
    not_accepted(post(slow))
    slow.call(journal.commit)
    assert slow.requested == []
    assert slow.get(COMMANDS).json["executions"] == []


def test_while_the_disk_is_full_nothing_hangs(slow, journal, caller):
    slow.connect()
    reply = caller.submit(post, slow, key="k")
    waits_for_the_disk(slow, journal)
    slow.call(journal.commit)
    execution = reply.result().json
    path = f"{COMMANDS}/{execution['executionId']}"
    slow.respond(execution, status="IN_PROGRESS")
    slow.call(journal.fail)
    assert slow.get(path).json["status"] == "IN_PROGRESS"
    assert slow.get(f"{path}?wait=0.05").status == 202
    assert [one["status"] for one in slow.get(COMMANDS).json["executions"]] == ["IN_PROGRESS"]
    assert slow.post(f"{path}/cancel").status == 200
    assert post(slow, key="k").json["executionId"] == execution["executionId"]
    not_accepted(post(slow, key="l"))
    assert slow.link.canceled == []  # what devices are told waits for the disk
    slow.call(journal.commit)
    assert slow.link.canceled == [("lamp", execution["executionId"])]


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("GET", "?wait=30"), ("POST", "/cancel")])
def test_who_found_an_execution_that_is_withdrawn_hears_that_it_never_was(slow, journal, tail, method):
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(post, slow)
        waits_for_the_disk(slow, journal)
        (execution,) = slow.call(lambda: list(slow.service.table))
        found = pool.submit(slow.request, method, f"{COMMANDS}/{execution.execution_id}{tail}")
        until(lambda: slow.call(lambda: len(journal._waiting) >= 3))
        slow.call(journal.fail)
        not_accepted(sent.result(5))
        assert found.result(5).status == 404


def test_that_an_execution_has_ended_is_told_when_it_is_kept(slow, journal, caller):
    slow.connect()
    sent = caller.submit(post, slow)
    waits_for_the_disk(slow, journal)
    slow.call(journal.commit)
    execution = sent.result().json
    slow.respond(execution, status="SUCCEEDED")
    refusal = caller.submit(slow.post, f"{COMMANDS}/{execution['executionId']}/cancel")
    until(lambda: slow.call(lambda: len(journal._waiting) >= 2))
    assert not refusal.done()
    slow.call(journal.commit)
    assert refusal.result(5).status == 409


def test_a_list_does_not_tell_of_what_was_withdrawn(slow, journal):
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(post, slow)
        waits_for_the_disk(slow, journal)
        listed = pool.submit(slow.get, COMMANDS)
        until(lambda: slow.call(lambda: len(journal._waiting) >= 3))
        slow.call(journal.fail)
        not_accepted(sent.result(5))
        assert listed.result(5).json["executions"] == []
