"""One post over the network: to whom it goes, and to whom it does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager

import pytest

from thingctl_broker.webhooks.client import AskedToWait, NotAllowed, WebhookClient

HEADERS = {"Content-Type": "application/json", "Thingctl-Timestamp": "1"}


@asynccontextmanager
async def receiver(answer=b"HTTP/1.1 204 No Content\r\n\r\n"):
    """Somebody who takes a post: yields its URI and what arrives."""
    heard = []
    left = asyncio.Semaphore(0)

    async def take(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        heard.append((head, await reader.readexactly(length)))
        if answer is not None:
            writer.write(answer)
        else:
            await reader.read()  # until the other side gives up
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        left.release()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://localhost:{port}/hook?x=1", heard
        await left.acquire()
    finally:
        server.close()


async def test_a_post_arrives():
    async with receiver() as (uri, heard):
        assert await WebhookClient(allow_private=True).post(uri, b'{"a":1}', HEADERS) == 204
    ((head, body),) = heard
    assert body == b'{"a":1}'
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hook?x=1 HTTP/1.1"
    assert lines[1].startswith("Host: localhost:")
    assert "Thingctl-Timestamp: 1" in lines
    assert "Connection: close" in lines


async def test_nobody_is_followed_anywhere():
    async with receiver(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n") as (uri, heard):
        assert await WebhookClient(allow_private=True).post(uri, b"{}", HEADERS) == 302
    assert len(heard) == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.1", "0x7f000001", "0.0.0.0"])
async def test_private_addresses_are_refused_before_anything_is_connected(host, monkeypatch):
    monkeypatch.setattr(asyncio, "open_connection", None)
    with pytest.raises(NotAllowed, match="not public"):
        await WebhookClient().post(f"http://{host}:80/", b"{}", HEADERS)


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(monkeypatch):
    """A name that resolves otherwise a moment later leads nowhere else."""
    asked, connected = [], []

    async def resolve(host, port, **_):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port)),
        ]

    async def connect(address, port, **options):
        connected.append((address, port, options["server_hostname"]))
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        await WebhookClient().post("https://hooks.example/", b"{}", HEADERS)
    assert asked == ["hooks.example"]
    assert connected == [("8.8.8.8", 443, "hooks.example")]


@pytest.mark.parametrize("answer", [b"220 mail\r\n", b"\r\n", b"HTTP/1.1 abc\r\n", b"x" * 20_000 + b"\r\n"])
async def test_who_does_not_speak_http(answer):
    async with receiver(answer) as (uri, _):
        with pytest.raises((ValueError, OSError)):
            await WebhookClient(allow_private=True).post(uri, b"{}", HEADERS)


async def test_who_never_answers():
    async with receiver(None) as (uri, _):
        with pytest.raises(TimeoutError):
            await WebhookClient(allow_private=True, timeout=0.05).post(uri, b"{}", HEADERS)


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        (b"429 Too Many\r\nRetry-After: 30\r\n", 30.0),
        (b"503 Later\r\nX: y\r\nretry-after:  7 \r\n", 7.0),
        (b"503 Later\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", None),
    ],
)
async def test_who_asks_to_wait(head, seconds):
    async with receiver(b"HTTP/1.1 " + head + b"\r\n") as (uri, _):
        with pytest.raises(AskedToWait) as raised:
            await WebhookClient(allow_private=True).post(uri, b"{}", HEADERS)
    assert raised.value.seconds == seconds or (seconds is None and raised.value.seconds > 1e9)


@pytest.mark.parametrize(
    "head", [b"429 Too Many\r\n", b"503 x\r\nRetry-After: 0\r\n", b"503 x\r\nRetry-After: soon\r\n", b"429 x"]
)
async def test_who_asks_for_nothing_is_tried_again_as_ever(head):
    async with receiver(b"HTTP/1.1 " + head + b"\r\n\r\n") as (uri, _):
        assert await WebhookClient(allow_private=True).post(uri, b"{}", HEADERS) == int(head[:3])
