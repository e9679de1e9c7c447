"""The HTTP load against a server written by hand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from http_client import HttpClient, parse
from http_load import HttpLoad
from processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Api(BaseHTTPRequestHandler):
    """Ends an execution at its second reading; every tenth one never is known again."""

    protocol_version = "HTTP/1.1"
    sent: dict[str, int]
    lost: set[str]
    refuse = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer secret"
        assert list(body) == ["thingId", "action", "params", "ttl"]
        if self.refuse:
            self._answer(429, {"title": "busy"})
            return
        execution_id = f"e{len(self.sent)}"
        self.sent[execution_id] = 0
        if len(self.sent) % 10 == 0:
            self.lost.add(execution_id)
        self._answer(201, {"executionId": execution_id, "status": "SENT"})

    def do_GET(self) -> None:
        execution_id = self.path.rpartition("/")[2]
        if execution_id in self.lost:
            self._answer(404, {"title": "unknown"})
            return
        self.sent[execution_id] += 1
        status = "SENT" if self.sent[execution_id] < 2 else "SUCCEEDED"
        self._answer(200, {"executionId": execution_id, "status": status})

    def _answer(self, code: int, body: dict[str, str]) -> None:
        encoded = json.dumps(body, separators=(",", ":")).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture
def port() -> Iterator[int]:
    Api.sent, Api.lost, Api.refuse = {}, set(), False
    with Server(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def run(port: int) -> dict[str, object]:
    client = HttpClient("127.0.0.1", [port], 4)
    result = HttpLoad(client, "secret", things=3, pids=[]).run(0.05, 0.2)
    client.close()
    return result


def test_every_execution_is_read_back_and_what_is_unknown_is_lost(port: int) -> None:
    result = run(port)
    assert result["sent"] == len(Api.sent) > 10
    assert result["lost"] == len(Api.lost)
    assert result["ended"] == {"SUCCEEDED": len(Api.sent) - len(Api.lost)}
    assert result["executions"] < result["sent"]
    assert 0 < result["per_second"] <= result["executions"] / result["seconds"]
    assert result["refused"] == {}


def test_what_was_refused_is_counted_and_is_no_execution(port: int) -> None:
    Api.refuse = True
    result = run(port)
    assert (result["sent"], result["executions"], result["lost"]) == (0, 0, 0)
    assert result["refused"][429] > 0


def test_answers_are_taken_however_they_are_cut() -> None:
    answer = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: 4\r\n\r\nabcd"
    for size in range(len(answer)):
        assert parse(answer[:size]) is None
    assert parse(answer) == (200, b"abcd")
    with pytest.raises(BenchError, match="Content-Length"):
        parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_a_server_that_does_not_answer_is_given_up_on() -> None:
    with Server(("127.0.0.1", 0), Api) as silent:  # listens, and nobody serves
        client = HttpClient("127.0.0.1", [silent.server_address[1]], 1)
        sent = iter([None])
        from http_client import Exchange

        with pytest.raises(BenchError, match="unanswered"):
            client.run(lambda: Exchange(b"GET / HTTP/1.1\r\n\r\n", next(sent, None)), print, 0.2)
        client.close()
