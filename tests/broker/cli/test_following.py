"""Waiting for the end of an execution, by the real command."""

from __future__ import annotations

import os
import pty
import re
import socket
import threading
from contextlib import closing

import pytest

from broker.cli.running import Cli
from broker.http.running import TOKEN, until
from thingctl_broker.cli import following
from thingctl_broker.cli.client import ApiClient, ProxyFailure
from thingctl_broker.cli.commands import suggestion
from thingctl_broker.cli.display import bar
from thingctl_broker.cli.exits import Failure


def test_what_happens_is_shown_when_it_happens(api, cli):
    with cli.start("send", "lamp", "x", "--wait") as process:
        lines = iter(process.stderr.readline, b"")
        assert next(lines).startswith(b"waiting for the thing to connect, until 2025-05-28 02:01:00")
        api.connect("lamp")
        assert next(lines).endswith(b"  published\n")
        execution = api.get("/api/v1/commands").json["executions"][0]
        api.respond(execution, status="IN_PROGRESS", progress={"percent": 40.50})
        assert next(lines).endswith(b"  at work\n")
        assert next(lines) == b"progress: 40.5 %\n"
        api.respond(execution, status="SUCCEEDED", result=[1])
        out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"lamp x: SUCCEEDED")


def test_progress_is_a_bar_on_a_terminal(api, cli):
    api.connect("lamp")
    ours, theirs = pty.openpty()
    with cli.start("send", "lamp", "x", "--wait", env={"TERM": "xterm"}, stderr=theirs) as process:
        os.close(theirs)
        until(lambda: api.waiting() == 1)
        execution = api.get("/api/v1/commands").json["executions"][0]
        api.respond(execution, status="IN_PROGRESS", progress={"percent": 50, "message": "half"})
        shown = b""
        while b"50 % half" not in shown:
            shown += os.read(ours, 4096)
        api.respond(execution, status="SUCCEEDED")
        process.communicate(timeout=10)
    os.close(ours)
    assert b"\r\x1b[K[############------------] 50 % half" in shown


class Gateway:
    """A proxy that answers some requests itself, and hands on the others."""

    def __init__(self, api, *statuses):
        self._api, self._statuses = api, list(statuses)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                head = sock.recv(65536)
                sock.sendall(self._answer(*head.split(b" ", 2)[:2]))

    def _answer(self, method, target):
        status = self._statuses.pop(0) if self._statuses else 200
        if status != 200:
            return b"HTTP/1.1 %d Bad\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>" % status
        reply = self._api.request(method.decode(), target.decode())
        return b"HTTP/1.1 %d OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
            reply.status,
            len(reply.content),
            reply.content,
        )


def test_a_proxy_that_gives_up_is_asked_again(api, tmp_path):
    api.connect("lamp")
    execution = api.send("lamp", "x")
    with (
        closing(Gateway(api, 200, 504, 502)) as gateway,
        Cli(gateway.url, tmp_path).start("watch", execution["executionId"]) as process,
    ):
        lines = iter(process.stderr.readline, b"")
        assert next(lines).endswith(b"  published\n")
        said = next(lines).decode()
        api.respond(execution, status="SUCCEEDED")
        out, err = process.communicate(timeout=20)
    assert re.match(r"a proxy at \S+ answered 504: .*; asking again\n", said)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"lamp x: SUCCEEDED")


def test_a_proxy_that_never_hands_on_is_given_up(api, monkeypatch):
    monkeypatch.setattr(following, "PROXY_PATIENCE", 0.0)
    execution = api.send("lamp", "x")
    with (
        closing(Gateway(api, *[503] * 9)) as gateway,
        ApiClient(gateway.url, TOKEN) as client,
        pytest.raises(Failure) as raised,
    ):
        following.follow(client, execution)
    assert not isinstance(raised.value, ProxyFailure)
    assert raised.value.text.endswith(f"; still SENT: thingctl watch {execution['executionId']}")


def test_an_unknown_action_shows_those_that_the_thing_has(api, cli):
    api.connect("lamp")
    api.call(api.service.announce, "lamp", b'{"actions":[{"name":"water"},{"name":"flush"}]}')
    execution = api.send("lamp", "watre")
    reason = {"reasonCode": "UNKNOWN_ACTION", "reasonDescription": "no such action"}
    api.respond(execution, status="REJECTED", statusReason=reason)
    for command in ("watch", "show"):
        ran = cli(command, execution["executionId"])
        assert re.search(r"it has +(water, flush|flush, water); did you mean water\?\n", ran.out), ran


@pytest.mark.parametrize(
    ("action", "announced", "text"),
    [
        ("watre", ["flush", "water"], "flush, water; did you mean water?"),
        ("x", ["flush"], "flush"),
        ("x", [], "no action announced"),
        ("x", ["\x1b[2J"], "\\x1b[2J"),
    ],
)
def test_suggestions(action, announced, text):
    assert suggestion(action, announced) == text


@pytest.mark.parametrize(
    ("progress", "columns", "text"),
    [
        ({"percent": 0}, 80, "[------------------------] 0 %"),
        ({"percent": 100}, 10, "[#########"),
        ({"percent": 400}, 80, "400 %"),
        ({"message": "half \x1b"}, 80, "half \\x1b"),
        ("odd", 80, "odd"),
    ],
)
def test_bars(progress, columns, text):
    assert bar(progress, columns) == text
