"""``GET /api/v1/events`` over real HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from broker.http.running import AUTHORIZED, RunningApi, until
from thingctl_broker.http.api import events
from thingctl_broker.security.tokens import Scope, Token


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


EVENTS = "/api/v1/events"


class Listener:
    """Reads a stream event by event. ``last_id`` is what an EventSource would resume from."""

    def __init__(self, response):
        self.response = response
        self.last_id = None

    def read(self):
        """The next block that says something: (event, data); heartbeats are ("", None)."""
        event, data = "", None
        while True:
            line = self.response.readline().decode()
            if line == "":
                return None
            line = line.rstrip("\n")
            if line == "":
                return event, data
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "id":
                self.last_id = value
            elif name == "data":
                data = json.loads(value)

    def execution(self):
        event, data = self.read()
        assert event == "execution"
        return data


@contextmanager
def listening(api, query="", last_id=None, first="ready", authorized=AUTHORIZED):
    connection = HTTPConnection(api.host, api.port, timeout=10)
    try:
        headers = authorized | ({} if last_id is None else {"Last-Event-ID": last_id})
        connection.request("GET", EVENTS + query, headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        listener = Listener(response)
        event, data = listener.read()
        assert event == first
        assert data["at"].endswith("Z")
        yield listener
    finally:
        connection.close()


@pytest.fixture
def quick(monkeypatch):
    """No pace, so that every step can be seen."""
    monkeypatch.setattr(events, "PACE", 0.0)


def test_each_change_is_told_with_the_execution_as_it_stands(api, quick):
    with listening(api) as listener:
        execution = api.send(params={"on": True})
        assert listener.execution() == execution
        api.respond(execution, status="IN_PROGRESS", progress={"percent": 40})
        assert listener.execution()["progress"] == {"percent": 40}
        api.respond(execution, status="SUCCEEDED", result=[1])
        last = listener.execution()
        assert (last["status"], last["result"]) == ("SUCCEEDED", [1])
        assert last == api.get(f"/api/v1/commands/{execution['executionId']}").json


@pytest.mark.parametrize("query", ["", "?action=open", "?status=SENT,IN_PROGRESS"])
def test_a_limited_token_hears_of_its_own_things(api, quick, query):
    """What happens to other things is silent: its first event is of its own thing."""
    made = {"name": "limited", "scopes": ["commands:read"], "things": ["lamp"]}
    authorized = {"Authorization": f"Bearer {api.post('/api/v1/tokens', made).json['token']}"}
    with listening(api, query, authorized=authorized) as listener:
        hidden = api.send("lock", "open")
        api.respond(hidden, status="IN_PROGRESS")
        own = api.send("lamp", "open")
        assert listener.execution()["executionId"] == own["executionId"]


def test_the_headers_tell_caches_and_proxies_to_keep_out(api):
    with listening(api) as listener:
        headers = {name.lower(): value for name, value in listener.response.getheaders()}
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize(
    "query", ["?thingId=lock", "?action=open", "?commandId={commandId}", "?status=REJECTED,FAILED"]
)
def test_a_filter_lets_through_what_it_names_and_nothing_else(api, quick, query):
    wanted = api.send("lock", "open")
    other = api.send("lamp", "turnOn")
    with listening(api, query.format(**wanted)) as listener:
        for execution in (other, wanted):
            api.respond(execution, status="IN_PROGRESS")
        api.respond(other, status="SUCCEEDED")
        api.respond(wanted, status="FAILED")
        seen = []
        while not seen or seen[-1]["status"] != "FAILED":
            seen.append(listener.execution())
        assert {execution["executionId"] for execution in seen} == {wanted["executionId"]}
        if "status" in query:
            assert [execution["status"] for execution in seen] == ["FAILED"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("?thingId=a/b", "thingId"),
        ("?action=", "action"),
        ("?status=DONE", "status"),
        ("?commandId=%20", "commandId"),
        ("?thingId=a&thingId=b", "thingId"),
        ("?thing=a", "thing"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(api, query, parameter):
    reply = api.get(EVENTS + query)
    assert (reply.status, reply.json["parameter"]) == (400, parameter)


def test_head_answers_without_listening(api):
    assert api.request("HEAD", EVENTS).status == 200
    assert not api.call(lambda: api.app._streams.noting)


def test_a_reader_that_comes_back_gets_what_it_has_missed(api, quick):
    with listening(api) as listener:
        first = api.send()
        listener.execution()
        last_id = listener.last_id
    api.respond(first, status="IN_PROGRESS")
    api.respond(first, status="SUCCEEDED")
    second = api.send("lock")
    with listening(api, last_id=last_id) as listener:
        seen = [listener.execution(), listener.execution()]
    assert [(e["executionId"], e["status"]) for e in seen] == [
        (first["executionId"], "SUCCEEDED"),
        (second["executionId"], "SENT"),
    ]


def test_what_cannot_be_resumed_is_told_so_that_the_reader_reads_the_list_again(api, quick):
    with listening(api, last_id="another-7", first="reset") as listener:
        execution = api.send()
        assert listener.execution()["executionId"] == execution["executionId"]


def test_a_reader_that_falls_behind_the_ring_is_told(api, monkeypatch):
    monkeypatch.setattr(events, "BATCH", 1)
    with listening(api) as listener:
        api.call(lambda: setattr(api.app._streams._feed, "capacity", 3))
        for _ in range(10):
            api.send()
        seen = []
        while "reset" not in seen:
            seen.append(listener.read()[0])
        assert seen.count("execution") < 10


def test_a_reader_that_does_not_keep_up_gets_the_latest_state_once(api, monkeypatch):
    monkeypatch.setattr(events, "PACE", 0.3)
    with listening(api) as listener:
        execution = api.send()
        assert listener.execution()["status"] == "SENT"
        for percent in range(50):
            api.respond(execution, status="IN_PROGRESS", progress={"percent": percent})
        api.respond(execution, status="SUCCEEDED")
        seen = [listener.execution()]
        while seen[-1]["status"] != "SUCCEEDED":
            seen.append(listener.execution())
        assert len(seen) < 10


def test_a_reader_that_does_not_read_costs_bounded_memory(api, quick):
    """Its connection's write buffer fills, and then nothing more is made for it."""
    request = f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTHORIZED['Authorization']}\r\n\r\n"
    with api.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request.encode())
        until(lambda: api.call(lambda: len(api.app._streams)) == 1)
        (connection,) = api.call(lambda: list(api.server._server.server_state.connections))
        execution = api.send(params={"text": "x" * 100_000})

        def one_more():
            api.respond(execution, status="IN_PROGRESS", progress={"message": "x" * 1000})
            return connection.flow.write_paused

        until(one_more, seconds=10.0)
        for _ in range(200):
            api.respond(execution, status="IN_PROGRESS", progress={"message": "y" * 1000})
        buffered = api.call(connection.transport.get_write_buffer_size)
        assert buffered < events.BATCH_BYTES + 300_000
        assert api.call(lambda: len(api.app._streams._feed)) == 1


def test_silence_is_broken_by_heartbeats_that_carry_the_position(api, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    with listening(api, "?thingId=lock") as listener:
        begun = listener.last_id
        assert listener.read() == ("", None)
        api.send("lamp")
        until(lambda: listener.read() == ("", None) and listener.last_id != begun)


def test_changes_that_a_reader_does_not_hear_of_do_not_delay_its_heartbeat(api, quick, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.5)
    with listening(api, "?thingId=lock") as listener:
        ids = {listener.last_id}
        ended = threading.Event()

        def others() -> None:
            while not ended.wait(0.02):
                api.send("lamp")

        sender = threading.Thread(target=others)
        sender.start()
        try:
            began = time.monotonic()
            for _ in range(3):
                assert listener.read() == ("", None)
                ids.add(listener.last_id)
            assert time.monotonic() - began < 5
        finally:
            ended.set()
            sender.join()
    assert len(ids) == 4


def test_line_breaks_that_a_client_put_between_tokens_do_not_break_the_stream(api, quick):
    with listening(api) as listener:
        body = b'{"thingId":"lamp","action":"turnOn","params":{\r\n\n"text"\n:\r"a\\nb"}}'
        api.post("/api/v1/commands", body)
        assert listener.execution()["params"] == {"text": "a\nb"}


def test_nothing_is_told_before_it_is_kept(quick):
    from broker_support import HeldJournal

    journal = HeldJournal()
    api = RunningApi(journal=journal)
    try:
        with listening(api) as listener:
            execution = api.call(api.service.send, "lamp", "turnOn")
            listener.response.fp.raw._sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                listener.read()
            api.call(journal.commit)
        assert execution.execution_id
    finally:
        api.call(journal.commit)
        api.close()


def test_nobody_listening_costs_nothing(api, monkeypatch):
    monkeypatch.setattr(events, "LINGER", 0.05)
    streams = api.app._streams
    assert not api.call(lambda: streams.noting)
    with listening(api):
        assert api.call(lambda: streams.noting)
    until(lambda: not api.call(lambda: streams.noting))
    api.send()
    assert api.call(lambda: len(streams._feed)) == 0
    assert api.call(lambda: len(streams)) == 0


def test_a_reader_that_returns_while_changes_are_still_noted_ends_the_lingering(api, monkeypatch):
    monkeypatch.setattr(events, "LINGER", 0.2)
    with listening(api):
        pass
    until(lambda: api.call(lambda: len(api.app._streams)) == 0)
    with listening(api):
        time.sleep(0.3)
        assert api.call(lambda: api.app._streams.noting)


def test_the_number_of_streams_is_bounded(api, monkeypatch):
    monkeypatch.setattr(events, "STREAMS_MAX", 1)
    with listening(api):
        reply = api.get(EVENTS)
        assert (reply.status, reply.json["type"]) == (503, "urn:thingctl:problem:too-many-streams")
        assert reply.headers["retry-after"] == "10"
    until(lambda: api.call(lambda: len(api.app._streams)) == 0)
    with listening(api):
        pass


def test_a_stream_ends_after_its_lifetime_so_that_its_token_is_looked_at_again(api, monkeypatch):
    monkeypatch.setattr(events, "LIFETIME", 0.1)
    with listening(api) as listener:
        assert listener.read() is None


def test_streams_end_promptly_when_the_broker_stops():
    api = RunningApi()
    with listening(api) as idle, listening(api) as busy:
        for _ in range(50):
            api.send()
        begun = time.monotonic()
        api.run(api.server.stop())
        assert time.monotonic() - begun < 0.4
        while busy.read() is not None:
            pass
        while idle.read() is not None:
            pass
    api.close()


def test_a_failure_of_one_stream_ends_it_alone(api, monkeypatch):
    with listening(api) as listener:
        monkeypatch.setattr(events, "encode_execution", lambda _: 1 / 0)
        api.send()
        assert listener.read() is None
        monkeypatch.undo()
    with listening(api) as listener:
        execution = api.send()
        assert listener.execution()["executionId"] == execution["executionId"]


READER = Token("reader", frozenset({Scope.COMMANDS_READ}))


@contextmanager
def read_by(api, token):
    """A stream that a token of its own has opened."""
    headers = {"Authorization": f"Bearer {api.run(api.tokens.add(token))}"}
    connection = HTTPConnection(api.host, api.port, timeout=5)
    try:
        connection.request("GET", EVENTS, headers=headers)
        with connection.getresponse() as response:
            listener = Listener(response)
            assert listener.read()[0] == "ready"
            yield listener
    finally:
        connection.close()


@pytest.mark.parametrize("change", ["revoke", "renew"])
def test_a_silent_stream_ends_with_its_token(api, change):
    with read_by(api, READER) as listener:
        api.run(getattr(api.tokens, change)("reader"))
        assert listener.read() is None  # long before the next heartbeat


def test_a_silent_stream_ends_when_its_token_expires(api):
    with read_by(api, READER._replace(expires_at=time.time() + 0.5)) as listener:
        assert listener.read() is None


def test_a_silent_stream_goes_on_when_another_token_ends(api, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.3)
    with read_by(api, READER) as listener:
        api.run(api.tokens.add(READER._replace(name="other")))
        api.run(api.tokens.revoke("other"))
        assert listener.read() == ("", None)
