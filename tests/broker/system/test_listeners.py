"""Listening where proxies are named: on both loops, with and without TLS."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import asynccontextmanager

import pytest

from support.waits import eventually
from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tls import ServerTls
from thingctl_broker.system import listeners
from thingctl_broker.system.addresses import Address, Networks, bind_tcp, bound_to
from thingctl_broker.system.listeners import DoorReason, listen

HERE = Networks(["127.0.0.1"])
ELSEWHERE = Networks(["192.0.2.1"])
HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\r\n"
PEER = ("192.0.2.7", 40000)


class Echo(asyncio.Protocol):
    """Says whom it has been told of, and then what comes."""

    def __init__(self, peer):
        self._peer = peer

    def connection_made(self, transport):
        self._transport = transport
        transport.write(f"{self._peer}\n".encode())

    def data_received(self, data):
        self._transport.write(data)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """What the listener serves, and how a client trusts it."""
    authority = Authority.make(utc_now())
    pair = authority.server(["localhost"], utc_now())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(pair.cert + pair.key)
    trust = ssl.create_default_context(cadata=authority.pair().cert.decode())
    return ServerTls(str(path), "").context, trust


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine in a loop of each kind; nothing may go wrong there unseen."""
    if request.param == "uvloop":
        runner = asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop)
    else:
        runner = asyncio.Runner()
    faults = []
    with runner:
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
        yield runner.run
    assert faults == []


@asynccontextmanager
async def listening(proxies=HERE, tls=None, seconds=None):
    """A listener; what it gives is its address, and whom it has refused."""
    told: list[tuple[str, DoorReason]] = []
    with bind_tcp(Address("127.0.0.1", 0)) as sock:
        listener = await listen(
            sock,
            Echo,
            tls=tls,
            tls_timeout=seconds,
            proxies=proxies,
            refused=lambda host, reason: told.append((host, reason)),
        )
        try:
            yield bound_to(sock), told
        finally:
            listener.close()
            await asyncio.sleep(0)


async def said(reader, text):
    """What the listener says at first, and that it repeats ``text``."""
    line = await reader.readline()
    assert await reader.readexactly(len(text)) == text
    return line.decode().strip()


@pytest.mark.parametrize("cut", [None, 1, 10])
@pytest.mark.parametrize(("header", "peer"), [(HEADER, PEER), (b"PROXY UNKNOWN\r\n", None)])
def test_the_protocol_is_told_whom_the_header_names(run, header, peer, cut):
    async def scenario():
        async with listening() as (address, told):
            reader, writer = await asyncio.open_connection(*address)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = header + b"hello"
            for start in range(0, len(data), cut or len(data)):
                writer.write(data[start : start + (cut or len(data))])
                await asyncio.sleep(0)
            assert await said(reader, b"hello") == str(peer)
            writer.close()
            assert told == []

    run(scenario())


def test_tls_begins_behind_the_header(run, tls):
    serve, trust = tls

    def client(address):
        with socket.create_connection(address, timeout=5) as sock:
            sock.sendall(HEADER)
            with trust.wrap_socket(sock, server_hostname="localhost") as wrapped:
                wrapped.sendall(b"hello")
                data = b""
                while not data.endswith(b"hello"):
                    data += wrapped.recv(1000)
                return data

    async def scenario():
        async with listening(tls=serve, seconds=5.0) as (address, told):
            assert await asyncio.to_thread(client, address) == f"{PEER}\nhello".encode()
            assert told == []

    run(scenario())


def test_a_handshake_that_fails_behind_the_header_ends_the_connection(run, tls):
    async def scenario():
        async with listening(tls=tls[0], seconds=5.0) as (address, told):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEADER + b"GET / HTTP/1.1\r\n\r\n")
            while await reader.read(1000):
                pass
            writer.close()
            assert told == []

    run(scenario())


def test_others_speak_as_without_proxies(run, tls):
    """A header is nothing to them: it is the protocol's, or TLS's, to refuse."""

    async def scenario():
        async with listening(ELSEWHERE) as (address, told):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEADER)
            assert await said(reader, HEADER) == "None"
            writer.close()
        async with listening(ELSEWHERE, tls=tls[0], seconds=5.0) as (address, _):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEADER)
            while await reader.read(1000):
                pass
            writer.close()
        assert told == []

    run(scenario())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", DoorReason.MISSING),
        (b"PROXY TCP4 x\r\n", DoorReason.MALFORMED),
        (b"PROXY TCP4", DoorReason.MALFORMED),
        (b"", None),
    ],
)
def test_a_named_proxy_without_its_header_is_refused(run, data, reason):
    async def scenario():
        async with listening() as (address, told):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(data)
            writer.write_eof()
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass  # closed with what it had sent unread
            writer.close()
            assert told == ([] if reason is None else [("127.0.0.1", reason)])

    run(scenario())


def test_a_header_has_its_time_and_there_is_a_bound_on_those_that_are_awaited(run, monkeypatch):
    monkeypatch.setattr(listeners, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(listeners, "PENDING_MAX", 1)

    async def scenario():
        async with listening() as (address, told):
            ends = []
            for _ in range(2):
                reader, _writer = await asyncio.open_connection(*address)
                ends.append((reader, _writer))
            for reader, writer in ends:
                assert await reader.read() == b""
                writer.close()
            assert sorted(reason for _, reason in told) == [DoorReason.LATE, DoorReason.TOO_MANY]
            reader, writer = await asyncio.open_connection(*address)  # and there is room again
            writer.write(HEADER)
            assert (await reader.readline()).decode().strip() == str(PEER)
            writer.close()

    run(scenario())


def test_closing_drops_those_that_are_awaited(run):
    async def scenario():
        async with listening() as (address, told):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"PROXY ")
            await asyncio.sleep(0.05)  # whether it has been read yet or not makes no difference
        assert await reader.read() == b""
        writer.close()
        assert told == []

    run(scenario())


def test_without_descriptors_it_waits_and_goes_on(monkeypatch):
    monkeypatch.setattr(listeners, "_PAUSE", 0.05)
    faults = [OSError(errno.EMFILE, "Too many open files")] * 2

    class Exhausted(socket.socket):
        def accept(self):
            if faults:
                raise faults.pop()
            return super().accept()

    async def scenario():
        with bind_tcp(Address("127.0.0.1", 0)) as bound:
            sock = Exhausted(fileno=bound.detach())
        with sock:
            sock.setblocking(False)
            listener = await listen(sock, Echo, proxies=HERE)
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            writer.write(HEADER)
            assert (await reader.readline()).decode().strip() == str(PEER)
            writer.close()
            listener.close()
            await eventually(lambda: not faults)

    asyncio.run(scenario())
