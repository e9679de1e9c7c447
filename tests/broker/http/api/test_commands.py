"""The endpoints of commands, over the real server."""

from __future__ import annotations

import threading

import pytest

from broker.http.running import AUTHORIZED, ClusterApi, RunningApi, until
from thingctl_broker.testing import InMemoryJournal


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


COMMANDS = "/api/v1/commands"


def path(execution):
    return f"{COMMANDS}/{execution['executionId']}"


def test_post_accepts_a_command_and_says_where_its_execution_is(api):
    reply = api.post(
        COMMANDS, {"thingId": "lamp", "action": "setTemperature", "params": {"value": 24}, "ttl": 30}
    )
    assert reply.status == 201
    execution = reply.json
    assert reply.link == path(execution)
    assert execution == {
        "executionId": execution["executionId"],
        "commandId": execution["commandId"],
        "thingId": "lamp",
        "action": "setTemperature",
        "params": {"value": 24},
        "ttl": 30,
        "status": "SENT",
        "delivery": "QUEUED",
        "attempts": 0,
        "createdAt": "2025-05-28T00:00:00.000Z",
        "expiresAt": "2025-05-28T00:00:30.000Z",
        "requestedBy": "admin",
        "events": [{"at": "2025-05-28T00:00:00.000Z", "event": "created"}],
    }
    assert api.get(path(execution)).json == execution


def test_params_and_ttl_may_be_left_out_or_null(api):
    for body in ({}, {"params": None, "ttl": None}):
        execution = api.post(COMMANDS, {"thingId": "lamp", "action": "turnOn"} | body).json
        assert (execution["params"], execution["ttl"]) == ({}, 60)


def test_params_reach_the_thing_digit_for_digit(api):
    api.connect("lamp")
    body = b'{"thingId":"lamp","action":"x","params":{"n":1.10,"big":123456789012345678901234567890}}'
    reply = api.post(COMMANDS, body, headers=AUTHORIZED | {"Content-Type": "application/json"})
    assert b'"params":{"n":1.10,"big":123456789012345678901234567890}' in reply.content
    until(lambda: api.requested)
    assert b'"params":{"n":1.10,"big":123456789012345678901234567890}' in api.requested[0].payload


def test_the_token_that_sent_a_command_is_on_record(api):
    api.send()
    assert api.newest().requested_by == "admin"


def test_an_execution_tells_its_whole_life(embedded):
    """A cluster does not tell when a thing has acknowledged its request."""
    api = embedded
    api.connect("lamp")
    execution = api.send(ttl=30)
    api.clock.advance(0.5)
    api.call(api.service.acknowledged, "lamp", execution["executionId"])
    api.clock.advance(0.5)
    api.respond(execution, status="IN_PROGRESS", progress={"percent": 40, "message": "half way"})
    api.clock.advance(1)
    api.respond(
        execution,
        status="FAILED",
        result={"reached": 22},
        statusReason={"reasonCode": "TOO_COLD", "reasonDescription": "the window is open"},
    )
    told = api.get(path(execution)).json
    assert told["status"] == "FAILED"
    assert told["delivery"] == "STARTED"
    assert told["result"] == {"reached": 22}
    assert told["statusReason"] == {"reasonCode": "TOO_COLD", "reasonDescription": "the window is open"}
    assert "progress" not in told  # it has ended
    assert told["durationSeconds"] == 2.0
    assert told["events"] == [
        {"at": "2025-05-28T00:00:00.000Z", "event": "created"},
        {"at": "2025-05-28T00:00:00.000Z", "event": "published"},
        {"at": "2025-05-28T00:00:00.500Z", "event": "delivered"},
        {"at": "2025-05-28T00:00:01.000Z", "event": "started"},
        {"at": "2025-05-28T00:00:02.000Z", "event": "ended"},
    ]
    assert "retrySafe" not in told


@pytest.mark.parametrize("connected", [False, True])
def test_a_timed_out_execution_says_whether_a_retry_is_safe_and_what_came_late(api, connected):
    if connected:
        api.connect("lamp")
    execution = api.send(ttl=1)
    api.clock.advance(1)
    api.expire()
    told = api.get(path(execution)).json
    assert (told["status"], told["retrySafe"]) == ("TIMED_OUT", not connected)
    api.clock.advance(2)
    api.respond(execution, status="SUCCEEDED", result=1)
    assert api.get(path(execution)).json["late"] == {
        "status": "SUCCEEDED",
        "at": "2025-05-28T00:00:03.000Z",
        "delaySeconds": 2.0,
        "result": 1,
    }
    api.respond(execution, status="FAILED")
    assert api.get(path(execution)).json["conflicts"] == 1


def answer_when_waited_for(api, status="SUCCEEDED"):
    """Let the newest execution end as soon as somebody waits for it."""

    def answer():
        until(lambda: api.waiting() > 0)
        api.respond({"thingId": "lamp", "executionId": api.requested[-1].execution_id}, status=status)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_post_with_wait_answers_when_the_execution_ends(api):
    api.connect("lamp")
    thread = answer_when_waited_for(api)
    reply = api.post(COMMANDS + "?wait=10", {"thingId": "lamp", "action": "turnOn"})
    thread.join()
    assert (reply.status, reply.json["status"]) == (200, "SUCCEEDED")
    assert reply.link == path(reply.json)


def test_post_with_wait_answers_202_when_the_execution_still_runs(api):
    reply = api.post(COMMANDS + "?wait=0.01", {"thingId": "lamp", "action": "turnOn"})
    assert (reply.status, reply.json["status"]) == (202, "SENT")
    assert reply.link == path(reply.json)
    assert api.waiting() == 0


def test_get_with_wait_answers_when_the_execution_ends(api):
    api.connect("lamp")
    execution = api.send()
    thread = answer_when_waited_for(api, "REJECTED")
    reply = api.get(path(execution) + "?wait=10")
    thread.join()
    assert (reply.status, reply.json["status"]) == (200, "REJECTED")
    assert api.get(path(execution) + "?wait=10").status == 200  # at once: it has ended
    assert api.get(path(api.send()) + "?wait=0.01").status == 202


def test_an_execution_that_has_ended_at_once_is_not_waited_for(api):
    """A device in the same process may answer while the request is being published."""
    api.connect("lamp")
    api.answer_at_once("lamp", b'{"status":"SUCCEEDED"}')
    reply = api.post(COMMANDS + "?wait=10", {"thingId": "lamp", "action": "turnOn"})
    assert (reply.status, reply.json["status"]) == (200, "SUCCEEDED")


def test_a_waiting_caller_that_goes_away_is_forgotten(api, capsys):
    sock = api.raw()
    body = b'{"thingId":"lamp","action":"turnOn"}'
    head = f"POST {COMMANDS}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTHORIZED['Authorization']}\r\n"
    sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: api.waiting() == 1)
    sock.close()
    until(lambda: api.waiting() == 0)
    assert api.get("/healthz").status == 200
    assert capsys.readouterr() == ("", "")


def test_cancel_withdraws_what_was_never_published(api):
    execution = api.send()
    reply = api.post(path(execution) + "/cancel")
    assert (reply.status, reply.json["status"]) == (200, "CANCELED")
    assert [event["event"] for event in reply.json["events"]] == ["created", "cancelRequested", "ended"]
    assert api.post(path(execution) + "/cancel").status == 409


def test_cancel_asks_a_thing_that_has_the_request_and_may_be_repeated(api):
    api.connect("lamp")
    execution = api.send()
    for _ in range(2):
        reply = api.post(path(execution) + "/cancel")
        assert (reply.status, reply.json["status"]) == (200, "SENT")
        assert reply.json["cancelRequestedAt"] == "2025-05-28T00:00:00.000Z"
    assert api.link.canceled == [("lamp", execution["executionId"])]


def ids(reply):
    assert reply.status == 200, reply
    return [execution["executionId"] for execution in reply.json["executions"]]


def test_list_shows_the_newest_first_and_filters(api):
    api.connect("lamp")
    lamp = [api.send("lamp", "turnOn"), api.send("lamp", "turnOff"), api.send("lamp", "turnOn")]
    lock = [api.send("lock", "unlock")]
    api.respond(lamp[0], status="SUCCEEDED")
    api.respond(lamp[1], status="FAILED")
    a, b, c, d = (execution["executionId"] for execution in lamp + lock)
    assert ids(api.get(COMMANDS)) == [d, c, b, a]
    assert ids(api.get(COMMANDS + "?thingId=lamp")) == [c, b, a]
    assert ids(api.get(COMMANDS + "?thingId=lamp&action=turnOn")) == [c, a]
    assert ids(api.get(COMMANDS + "?status=SUCCEEDED")) == [a]
    assert ids(api.get(COMMANDS + "?status=SUCCEEDED,FAILED")) == [b, a]
    assert ids(api.get(COMMANDS + "?status=SUCCEEDED&status=SENT")) == [d, c, a]
    assert ids(api.get(COMMANDS + "?thingId=nobody")) == []
    api.respond(lamp[2], status="FAILED", statusReason={"reasonCode": "NO DISK"})
    assert ids(api.get(COMMANDS + "?reasonCode=NO%20DISK")) == [c]
    assert ids(api.get(COMMANDS + "?reasonCode=NO_DISK")) == []
    assert api.get(COMMANDS + "?limit=4").json["nextCursor"] is None
    assert api.get(COMMANDS).json["executions"][0] == api.get(path(lock[0])).json


def test_cursors_walk_every_execution_exactly_once_while_new_ones_arrive(api):
    def send_many(count):
        return set(api.send_to(f"t{i % 7}" for i in range(count)))

    for i in range(7):
        api.know(f"t{i}")
    before = send_many(1000)
    walked = []
    cursor = ""
    while cursor is not None:
        page = api.get(f"{COMMANDS}?limit=37" + (f"&cursor={cursor}" if cursor else "")).json
        walked += [execution["executionId"] for execution in page["executions"]]
        cursor = page["nextCursor"]
        send_many(3)
    assert walked == sorted(before, reverse=True)


def test_a_page_ends_early_rather_than_growing_without_bound(api):
    sent = [api.send(params={"text": "x" * 100_000}) for _ in range(45)]
    first = api.get(COMMANDS + "?limit=500")
    assert len(first.content) < 2.1 * 1024 * 1024
    second = api.get(f"{COMMANDS}?limit=500&cursor={first.json['nextCursor']}")
    third = api.get(f"{COMMANDS}?limit=500&cursor={second.json['nextCursor']}")
    assert ids(first) + ids(second) + ids(third) == [e["executionId"] for e in reversed(sent)]
    assert third.json["nextCursor"] is None


class LaterJournal:
    """Keeps things only when told to."""

    def __init__(self):
        self.callbacks = []

    def record(self, execution):
        pass

    accepting = True

    def forget(self, execution_id):
        pass

    def then(self, kept, lost=None):
        self.callbacks.append(kept)

    def keep(self):
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/v1/commands"),
        ("GET", "/api/v1/commands"),
        ("GET", "/api/v1/commands/{id}"),
        ("POST", "/api/v1/commands/{id}/cancel"),
    ],
)
def test_nothing_is_told_before_it_is_kept(method, target):
    journal = LaterJournal()
    api = RunningApi(journal=journal)
    try:
        execution = api.call(api.service.send, "lamp", "turnOn")
        api.call(journal.keep)
        replies = []

        def ask():
            body = {"thingId": "lamp", "action": "turnOn"} if target == "/api/v1/commands" else None
            asked = target.format(id=execution.execution_id)
            replies.append(api.request(method, asked, body if method == "POST" else None))

        thread = threading.Thread(target=ask)
        thread.start()
        until(
            lambda: len(journal.callbacks) == (2 if target == "/api/v1/commands" and method == "POST" else 1)
        )
        assert replies == []
        while thread.is_alive():  # a cancel is kept before it is made, and once more as it was made
            api.call(journal.keep)
            thread.join(0.01)
        assert replies[0].status in {200, 201}
    finally:
        api.close()


@pytest.fixture
def full():
    """An API whose journal finds the disk full at the next try, and one command that is kept."""
    journal = InMemoryJournal()
    running = RunningApi(journal=journal)
    execution = running.call(running.service.send, "lamp", "turnOn")
    running.call(journal.commit)
    yield running, {"executionId": execution.execution_id, "thingId": "lamp"}
    running.close()


def ask_while_the_disk_fills(api, *args):
    """The reply to a request whose record cannot be kept."""
    replies = []
    thread = threading.Thread(target=lambda: replies.append(api.request(*args)))
    thread.start()
    until(lambda: api.service.journal._waiting)
    assert replies == []
    api.call(api.service.journal.fail)
    thread.join()
    return replies[0]


@pytest.mark.parametrize("wait", ["", "?wait=30"])
def test_a_command_that_cannot_be_kept_is_not_accepted(full, wait):
    api, kept = full
    body = {"thingId": "lamp", "action": "turnOff"}
    reply = ask_while_the_disk_fills(api, "POST", COMMANDS + wait, body)
    assert (reply.status, reply.json["type"]) == (503, "urn:thingctl:problem:not-accepting")
    assert reply.headers["retry-after"] == "5"
    assert [e.execution_id for e in api.call(lambda: list(api.service.table))] == [kept["executionId"]]
    assert api.post(COMMANDS, body).json["type"] == "urn:thingctl:problem:not-accepting"


def test_while_nothing_can_be_kept_executions_can_be_read_and_a_cancel_is_refused_and_not_made(full):
    api, kept = full
    reply = ask_while_the_disk_fills(api, "POST", path(kept) + "/cancel")
    assert (reply.status, reply.json["type"]) == (503, "urn:thingctl:problem:not-accepting")
    assert api.request("GET", path(kept)).json["status"] == "SENT"
    assert api.request("POST", path(kept) + "/cancel").status == 503
    # From here on nobody waits for a disk that is known to be full.
    assert api.request("GET", path(kept)).status == 200
    assert ids(api.request("GET", COMMANDS)) == [kept["executionId"]]


def test_a_key_makes_a_command_safe_to_send_again(api):
    body = {"thingId": "lamp", "action": "turnOn", "params": {"level": 1}}
    key = AUTHORIZED | {"Idempotency-Key": '"8e03978e-40d5"'}
    first = api.post(COMMANDS, body, headers=key)
    again = api.post(COMMANDS, body, headers=key)
    assert (again.status, again.content, again.link) == (201, first.content, path(first.json))
    assert len(api.executions()) == 1
    other = api.post(COMMANDS, body | {"params": {"level": 2}}, headers=key)
    assert (other.status, other.json["type"]) == (409, "urn:thingctl:problem:idempotency-conflict")
    assert api.post(COMMANDS, body, headers=AUTHORIZED | {"Idempotency-Key": "another"}).json != first.json
    assert len(api.executions()) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb"])
def test_a_key_that_cannot_be_one_is_refused(api, key):
    reply = api.post(
        COMMANDS, {"thingId": "lamp", "action": "x"}, headers=AUTHORIZED | {"Idempotency-Key": key}
    )
    assert (reply.status, reply.json["header"]) == (400, "Idempotency-Key")
    assert reply.json["type"] == "urn:thingctl:problem:invalid-header"
    assert len(api.executions()) == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_dry_run_checks_where_to_post_back(api, many):
    where = {"targets": {"things": ["lamp"]}, "dryRun": True} if many else {"thingId": "lamp"}
    target = "/api/v1/commands" if many else "/api/v1/commands?validate=only"
    reply = api.post(target, {**where, "action": "turnOn", "postBackUri": "ftp://x"})
    assert (reply.status, reply.json["pointer"]) == (400, "/postBackUri")


def listed(api, query):
    reply = api.get(f"/api/v1/commands?{query}")
    assert reply.status == 200, reply
    return [execution["action"] for execution in reply.json["executions"]]


def test_list_by_time_tag_and_sort(api):
    assert api.request("PUT", "/api/v1/things/lamp", {"tags": ["hall", "old"]}).status == 200
    api.send("lamp", "first")
    api.clock.advance(10)
    middle = api.send("lock", "second")["createdAt"]
    api.clock.advance(10)
    api.send("lamp", "third")
    assert listed(api, "sort=createdAt") == ["first", "second", "third"]
    assert listed(api, "sort=-createdAt") == ["third", "second", "first"]
    assert listed(api, f"createdAfter={middle}") == ["third", "second"]
    assert listed(api, f"createdBefore={middle}") == ["first"]
    assert listed(api, f"createdBefore={middle.replace('Z', '+00:00')}") == ["first"]
    assert listed(api, "tag=hall&tag=old") == ["third", "first"]
    assert listed(api, "tag=hall&tag=new") == []
    assert listed(api, "createdAfter=0988-06-13T08:20:56.2Z") == ["third", "second", "first"]
    assert listed(api, "createdBefore=0001-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    "query",
    [
        "sort=name",
        "createdAfter=soon",
        "createdAfter=2025-05-28",
        "createdBefore=2025-05-28T00:00:00",
        "tag=no%20tag",
        "commandId=0193448F-5D1C-7000-9B3C-0A1B2C3D4E5F",
        "commandId=0193448f",
        "reasonCode=",
        "reasonCode=" + 65 * "x",
    ],
)
def test_list_by_what_makes_no_sense(api, query):
    reply = api.get(f"/api/v1/commands?{query}")
    assert (reply.status, reply.json["parameter"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize("at", ["waiting", "reading"])
def test_a_command_that_was_accepted_is_not_said_to_be_refused_when_the_store_goes_away(at):
    """Whoever waits for its end would send it again. (The embedded broker has no such store.)"""
    api = ClusterApi()
    try:
        if at == "waiting":
            get = api.fleet.store.get

            async def away(execution_id):
                api.fleet.down()
                return await get(execution_id)

            api.fleet.store.get = away
        else:
            api.call(api.operations.stop)  # nobody waits any more
            add = api.fleet.store.add

            async def added(execution, *, queue_max):
                found = await add(execution, queue_max=queue_max)
                api.fleet.down()
                return found

            api.fleet.store.add = added
        reply = api.post(COMMANDS + "?wait=10", {"thingId": "lamp", "action": "turnOn"})
        assert (reply.status, reply.json["status"]) == (202, "SENT")
        assert reply.link == path(reply.json)
        reply = api.post(COMMANDS, {"thingId": "lamp", "action": "turnOn"})
        assert (reply.status, reply.json["type"]) == (503, "urn:thingctl:problem:not-accepting")
        assert reply.headers["retry-after"] == "5"
        assert api.get(path({"executionId": api.newest().execution_id})).status == 503
    finally:
        api.close()


@pytest.mark.parametrize("cursor", ["x", "zzz", "01A1F910-3312-7001-9755-178B4DBB18E2", "01a1f910-3312", ""])
def test_a_cursor_that_no_answer_has_given_is_refused(api, cursor):
    reply = api.get(f"{COMMANDS}?cursor={cursor}")
    assert (reply.status, reply.json["parameter"]) == (400, "cursor")


def test_a_byte_order_mark_is_no_fault(api):
    assert api.post(COMMANDS, b'\xef\xbb\xbf{"thingId":"lamp","action":"turnOn"}').status == 201


@pytest.mark.parametrize(
    "body",
    [
        '{"thingId":"lamp","thingId":"lock","action":"turnOn"}',
        '{"thingId":"lamp","thing\\u0049d":"lock","action":"turnOn"}',
        '{"thingId":"lamp","action":"a","action":"a"}',
    ],
)
def test_a_field_that_is_given_twice_is_refused(api, body):
    reply = api.post(COMMANDS, body)
    assert (reply.status, reply.json["type"]) == (400, "urn:thingctl:problem:invalid-body")
    assert "twice" in reply.json["detail"]
    assert reply.json["pointer"] in {"/thingId", "/action"}


def test_a_name_may_stand_again_inside_the_params(api):
    params = '{"thingId":"x","action":"\\u00e4","thing":{"thingId":1}}'
    assert api.post(COMMANDS, f'{{"thingId":"lamp","action":"turnOn","params":{params}}}').status == 201


def test_a_number_that_is_too_large_is_called_that(api):
    reply = api.post(COMMANDS, '{"thingId":"lamp","action":"turnOn","params":{"n":1e400}}')
    assert (reply.status, reply.json["detail"]) == (400, "it holds a number that is out of range")


@pytest.mark.parametrize("ttl", ["60.0", "6e1", "60"])
@pytest.mark.parametrize(
    "targets", ['"thingId":"lamp"', '"targets":{"things":["lamp"]},"rollout":{"batch":1.0}']
)
def test_an_integer_may_have_a_fraction_of_zero_or_an_exponent(api, ttl, targets):
    body = '{%s,"action":"turnOn","ttl":%s,"params":{"a":1.10}}' % (targets, ttl)  # noqa: UP031 braces
    assert api.post(COMMANDS, body).status in {201, 202}
    wrong = api.post(COMMANDS, body.replace(ttl, "60.5"))
    assert (wrong.status, wrong.json["pointer"]) == (400, "/ttl")
