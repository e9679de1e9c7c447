"""The client, against servers that are not what they should be."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager

import pytest

from broker.http.running import TOKEN
from thingctl_broker.cli import client as module
from thingctl_broker.cli.client import ApiClient, ProxyFailure
from thingctl_broker.cli.exits import Exit, Failure

EXECUTION = b'{"executionId":"e","status":"SENT"}'


@contextmanager
def serving(*answers):
    """A server that says these bytes, each to one connection, whatever it is asked."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve():
            for answer in answers:
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    if answer is not None:
                        sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def http(content, status=200, reason=b"OK"):
    return b"HTTP/1.1 %d %b\r\nContent-Length: %d\r\n\r\n%b" % (status, reason, len(content), content)


def failure(url, call=lambda client: client.execution("e")):
    with ApiClient(url, TOKEN) as client, pytest.raises(Failure) as raised:
        call(client)
    assert "\n" not in raised.value.text
    return raised.value


@pytest.mark.parametrize(
    "answer",
    [
        http(b"<html>hello</html>"),
        http(b"[]"),
        http(b"{}"),
        http(b'{"executionId":1,"status":2}'),
        http(b"\xff"),
        http(b"[" * 100_000),
        http(b"", 302, b"Found"),
    ],
)
def test_a_server_that_is_no_broker_is_told_from_one_that_is_not_there(answer):
    with serving(answer) as url:
        found = failure(url)
    assert (found.code, found.text) == (
        Exit.UNREACHABLE,
        f"what answers at {url} is not a thingctl broker",
    )


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("content", [b"<html>bad gateway</html>", b"", b'{"message":"bad gateway"}'])
def test_a_proxy_that_answers_in_the_brokers_place_is_named(status, content):
    with serving(http(content, status, b"Bad")) as url:
        found = failure(url)
    assert isinstance(found, ProxyFailure)
    assert (found.code, found.text) == (
        Exit.UNREACHABLE,
        f"a proxy at {url} answered {status}: the broker behind it did not answer in time",
    )


def test_a_proxy_that_answers_a_post_leaves_open_what_the_broker_did():
    with serving(http(b"", 504, b"Gateway Timeout")) as url:
        found = failure(url, lambda client: client.send("lamp", "x", "{}", None))
    assert found.text.endswith("; whether the broker has done what was asked is not known")


def test_a_503_of_the_broker_is_no_proxys():
    problem = {"type": "urn:thingctl:problem:table-full", "detail": "full"}
    with serving(http(json.dumps(problem).encode(), 503, b"No")) as url:
        found = failure(url)
    assert (found.code, found.text) == (Exit.REFUSED, "full")


@pytest.mark.parametrize(
    "answer", [None, b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]
)
def test_a_server_that_breaks_off_is_unreachable(answer):
    with serving(answer) as url:
        assert failure(url).code is Exit.UNREACHABLE


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        found = failure(url)
        assert (found.code, found.text) == (
            Exit.UNREACHABLE,
            f"the broker at {url} did not answer within 0.05 s",
        )
        assert "within 0.1 s" in failure(url, lambda client: client.execution("e", 0.05)).text


def test_after_a_failure_the_client_starts_afresh(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, ApiClient(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN) as client:
        for _ in range(2):
            with pytest.raises(Failure, match="did not answer within"):
                client.execution("e")


def test_what_a_server_says_while_it_refuses_to_read_on_is_heard():
    with (
        serving(http(b'{"detail":"too long"}', 413, b"Content Too Large")) as url,
        ApiClient(url, TOKEN) as client,
    ):
        request = client._connection.request

        def cut_off(*args):
            request(*args)
            raise BrokenPipeError

        client._connection.request = cut_off
        with pytest.raises(Failure, match="too long"):
            client.execution("e")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ({"detail": "no"}, "no"),
        ({"detail": "no", "pointer": "/ttl"}, "no (at /ttl)"),
        ({"detail": "no", "parameter": "wait"}, "no (at wait)"),
        ({"title": "No"}, "No"),
        ({}, "the broker answered 400"),
    ],
)
def test_problem_details_become_a_sentence(problem, text):
    with serving(http(json.dumps(problem).encode(), 400, b"Bad Request")) as url:
        found = failure(url)
    assert (found.code, found.text) == (Exit.REFUSED, text)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_has_a_code_of_its_own(status):
    with serving(http(b'{"detail":"no"}', status, b"No")) as url:
        assert failure(url).code is Exit.UNAUTHORIZED


def test_a_page_without_items_is_no_page():
    with serving(http(b'{"nextCursor":null}')) as url:
        assert failure(url, lambda client: list(client.items("/things", "things"))).code is Exit.UNREACHABLE


def test_a_broker_behind_a_path(api):
    with serving(http(EXECUTION)) as url, ApiClient(url + "/broker/", TOKEN) as client:
        assert client._base == "/broker/api/v1"
        assert client.execution("e")["status"] == "SENT"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:80",
        "http://",
        "http://:80",
        "http://x:port",
        "ftp://x",
        "http://x?a",
        "http://x#a",
    ],
)
def test_what_is_no_url_is_a_usage_error(url):
    with pytest.raises(Failure) as raised:
        ApiClient(url, TOKEN)
    assert raised.value.code is Exit.USAGE


def test_a_body_that_the_broker_refuses_while_it_is_sent(api):
    """The broker answers 413 and closes; its words still arrive, or at least a clear failure."""
    with ApiClient(api.url, TOKEN) as client:
        with pytest.raises(Failure) as raised:
            client.send("lamp", "x", json.dumps({"a": "x" * 5_000_000}), None)
        assert raised.value.code in {Exit.REFUSED, Exit.UNREACHABLE}
        assert client.send("lamp", "x", "{}", 5)["ttl"] == 5


def test_the_connection_is_kept_between_calls(api):
    with ApiClient(api.url, TOKEN) as client:
        execution = client.send("lamp", "x", "{}", None)
        first = client._connection.sock
        client.execution(execution["executionId"])
        assert client._connection.sock is first
        assert first.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
