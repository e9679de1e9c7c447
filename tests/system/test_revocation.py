"""A token that ends takes everything that it opened along: event streams, MQTT observers, console sessions."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.operators import Operator
from support.paho import Listening
from support.processes import Serving, serving
from support.waits import soon

pytestmark = pytest.mark.system

API = "/api/v1"
SCOPES = ["commands:read", "mqtt:read"]


class EventReader:
    """Reads an event stream to its end, in a thread."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=20)
        self._connection.request("GET", f"{API}/events", headers={"Authorization": f"Bearer {token}"})
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        self.text = ""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while line := self._response.readline():
            self.text += line.decode()

    def close(self) -> None:
        self.thread.join(20)
        self._connection.close()


class Observer(Listening):
    """An MQTT client that watches the command traffic; it does not come back by itself."""

    def __init__(self, broker: Serving, token: str) -> None:
        super().__init__("observer", reconnect_on_failure=False)
        self.username_pw_set("@watcher", token)
        self.begin(broker.mqtt_address)
        assert self.listen("$emqx/commands/#") != [0x80]


@pytest.fixture
def broker(tmp_path) -> Iterator[Serving]:
    with serving(tmp_path / "data", enrolment="--closed") as found:
        yield found


@pytest.fixture
def operator(broker) -> Iterator[Operator]:
    with closing(Operator(broker.http_address)) as found:
        assert found.call("POST", f"{API}/things", {"name": "lamp"}).status == 201
        yield found


def make(operator: Operator, **fields: Any) -> str:
    answer = operator.call("POST", f"{API}/tokens", {"name": "watcher", "scopes": SCOPES, **fields})
    assert answer.status == 201, answer
    return answer.body["token"]


def revoke(operator: Operator) -> None:
    assert operator.call("DELETE", f"{API}/tokens/watcher").status == 204


def renew(operator: Operator) -> None:
    assert operator.call("POST", f"{API}/tokens/watcher/renew").status == 200


@pytest.mark.parametrize("end", [revoke, renew])
def test_a_stream_and_an_observer_end_with_their_token(broker, operator, end):
    token = make(operator)
    reader, observer = EventReader(broker.http_address, token), Observer(broker, token)
    before = operator.send("lamp", "turnOn")
    soon(lambda: before in reader.text)
    began = time.monotonic()
    end(operator)
    reader.thread.join(10)
    soon(lambda: not observer.is_connected(), 10)
    assert time.monotonic() - began < 5
    after = operator.send("lamp", "turnOn")
    with closing(operator.another(token)) as holder:
        assert holder.call("GET", f"{API}/me").status == 401
    observer.vanish()
    reader.close()
    assert after not in reader.text
    topics = [observer.messages.get_nowait().topic for _ in range(observer.messages.qsize())]
    assert not any(after in topic for topic in topics)


def test_a_stream_and_an_observer_end_when_their_token_expires(broker, operator):
    expires = datetime.now(UTC) + timedelta(seconds=2)
    token = make(operator, expiresAt=expires.isoformat().replace("+00:00", "Z"))
    reader, observer = EventReader(broker.http_address, token), Observer(broker, token)
    reader.thread.join(10)
    soon(lambda: not observer.is_connected(), 10)
    assert datetime.now(UTC) < expires + timedelta(seconds=5)
    observer.vanish()
    reader.close()


def test_a_console_session_ends_with_the_token_that_it_was_made_with(broker, operator):
    token = make(operator, scopes=["commands:read"])
    with closing(operator.another(token)) as holder:
        code = holder.call("POST", f"{API}/sign-in-codes").body["code"]
        session = holder.call("POST", f"{API}/sign-in", {"code": code}).body["token"]
    reader = EventReader(broker.http_address, session)
    revoke(operator)
    reader.thread.join(5)
    assert not reader.thread.is_alive()
    reader.close()
    with closing(operator.another(session)) as holder:
        assert holder.call("GET", f"{API}/me").status == 401
