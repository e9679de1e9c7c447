"""The load of ordinary messages: publishers, subscribers and bystanders of one broker, in one process.

stdin takes orders, one JSON object a line; stdout answers each with a JSON line of the order's name:

``clients``  connects ``count`` clients called ``name``, with ``filters`` each; {n} is the client's number
``leave``    closes the connections of ``clients``
``flows``    connects ``publishers`` publishers, and ``copies`` subscribers to the topic of each
``run``      keeps ``window`` messages of each publisher in flight for ``seconds``, or sends ``messages``
``away``     disconnects the subscribers; ``flows`` said ``kept``, and the broker keeps their sessions
``back``     connects them again and takes what was kept: ``messages`` of each publisher
``end``      closes the connections of ``flows``
``heard``    how many messages came since the last ``heard``

A message is in flight until every subscriber has it and, at QoS 1, the broker has acknowledged it. All writes
of one turn of the loop to one socket are one system call. One thread over epoll, as in ``fleet``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import socket
import sys
import time
from typing import Any, Final

import mqtt_wire
from fleet import IP_BIND_ADDRESS_NO_PORT, PORTS_PER_ADDRESS, tell
from processes import allow_many_files, cpu_seconds
from traffic_parts import Client, Flow

READ_MAX: Final = 64 * 1024
PENDING: Final = 64
"""Handshakes under way at once: fewer than the backlog of 100 that brokers listen with."""

STALL_SECONDS: Final = 5.0
"""A run without any progress for so long is over, and what is in flight is lost."""


class Traffic:
    """All clients of one broker, and the loop that serves them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.epoll = select.epoll()
        self.by_fd: dict[int, Client] = {}
        self.bystanders: list[Client] = []
        self.publishers: list[Client] = []
        self.subscribers: list[Client] = []
        self.touched: set[Flow] = set()
        self.ready = self.opened = self.heard = 0
        self.kept = False
        self.orders: list[bytes] = []
        self.rest = b""
        self.running = True

    # The loop.

    def serve(self) -> None:
        """Obey stdin until it ends."""
        os.set_blocking(sys.stdin.fileno(), False)
        self.epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while self.running or self.orders:
            if self.orders:
                order = json.loads(self.orders.pop(0))
                tell(order["do"], **getattr(self, f"do_{order['do']}")(order))
            else:
                self.turn(1.0)

    def turn(self, seconds: float) -> bool:
        """Take what has come; whether anything has."""
        events = self.epoll.poll(seconds, 1024)
        for fd, _ in events:
            client = self.by_fd.get(fd)
            if client is not None:
                self.on_readable(client, fd)
            elif fd == sys.stdin.fileno():
                self.on_order(os.read(fd, 65536))
        for flow in self.touched:
            self.top_up(flow)
        self.touched.clear()
        return bool(events)

    def on_order(self, data: bytes) -> None:
        """Keep whole lines for later."""
        self.running = bool(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.orders += [line for line in lines if line]
        if not data:
            self.epoll.unregister(sys.stdin.fileno())

    def on_readable(self, client: Client, fd: int) -> None:
        data = os.read(fd, READ_MAX)
        if not data:
            raise SystemExit(f"traffic: the broker closed the connection of {client.name}")
        self.on_data(client, client.rest + data if client.rest else data)

    def on_data(self, client: Client, data: bytes) -> None:
        """Take packets in: as a whole where they are alike, else one by one."""
        flow = client.flow
        if flow is not None:
            self.touched.add(flow)
            before = flow.delivered
            answer = flow.take(data)
            if answer is not None:
                self.heard += flow.delivered - before
                client.rest = b""
                if answer:
                    send(client, answer)
                return
        self.on_packets(client, data)

    def on_packets(self, client: Client, data: bytes) -> None:
        """Count messages and acknowledgements, and acknowledge in one write."""
        delivered = acknowledged = end = 0
        out: list[bytes] = []
        for first, body, end in mqtt_wire.packets(data):
            kind = first & 0xF0
            if kind == mqtt_wire.PUBLISH:
                delivered += 1
                if first & 0x06:
                    at = body + 2 + (data[body] << 8 | data[body + 1])
                    out.append(mqtt_wire.puback(data[at : at + 2]))
            elif kind == mqtt_wire.PUBACK:
                acknowledged += 1
            else:
                self.on_handshake(client, kind, data[body:end])
        client.rest = data[end:]
        if out:
            send(client, b"".join(out))
        self.heard += delivered
        if client.flow is not None:
            client.flow.delivered += delivered
            client.flow.acknowledged += acknowledged

    def on_handshake(self, client: Client, kind: int, packet: bytes) -> None:
        """Take CONNACK and SUBACKs."""
        if kind == mqtt_wire.CONNACK:
            if packet[1]:
                raise SystemExit(f"traffic: {client.name} was refused: CONNACK {packet[1]}")
            numbered = enumerate(client.filters, 1)
            if client.filters:
                send(client, b"".join(mqtt_wire.subscribe(i, name, client.qos) for i, name in numbered))
        elif kind == mqtt_wire.SUBACK:
            if packet[2] > 2:
                raise SystemExit(f"traffic: {client.name} may not subscribe: {packet.hex()}")
            client.granted += 1
        if client.granted == len(client.filters):
            self.ready += 1

    def top_up(self, flow: Flow) -> None:
        due = flow.due()
        if due and flow.publisher is not None:
            send(flow.publisher, due)

    # Connections.

    def open(self, clients: list[Client]) -> dict[str, Any]:
        """Connect and subscribe them all; return how long it took."""
        began = time.monotonic()
        self.ready = 0
        for number, client in enumerate(clients):
            while number - self.ready >= PENDING:
                self.wait()
            self.connect(client)
        while self.ready < len(clients):
            self.wait()
        return {"seconds": round(time.monotonic() - began, 4), "count": len(clients)}

    def wait(self) -> None:
        if not self.turn(60.0):
            raise SystemExit("traffic: the broker has said nothing for a minute")

    def connect(self, client: Client) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        source = self.opened // PORTS_PER_ADDRESS
        sock.bind((f"127.0.{source // 250}.{1 + source % 250}", 0))
        sock.connect(("127.0.0.1", self.port))
        self.opened += 1
        client.sock, client.rest, client.granted = sock, b"", 0
        self.by_fd[sock.fileno()] = client
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        clean = not (self.kept and client in self.subscribers)
        send(client, mqtt_wire.connect(client.name, username=client.name, clean=clean))

    def close(self, clients: list[Client]) -> None:
        """Disconnect, and wait until the broker has closed each connection."""
        for client in clients:
            assert client.sock is not None
            send(client, mqtt_wire.DISCONNECT)
            del self.by_fd[client.sock.fileno()]
            self.epoll.unregister(client.sock.fileno())
        for client in clients:
            assert client.sock is not None
            client.sock.settimeout(30)
            while client.sock.recv(READ_MAX):
                pass
            client.sock.close()

    # Orders.

    def do_clients(self, order: dict[str, Any]) -> dict[str, Any]:
        filters, name = order["filters"], order["name"]
        self.bystanders = [
            Client(name.format(n=n), [each.format(n=n) for each in filters], order.get("qos", 0))
            for n in range(order["count"])
        ]
        before = cpu_seconds(order["pids"])
        found = self.open(self.bystanders)
        cpu = cpu_seconds(order["pids"]) - before
        return {**found, "cpu_us": round(cpu * 1e6 / order["count"], 2)}

    def do_leave(self, _: dict[str, Any]) -> dict[str, Any]:
        self.close(self.bystanders)
        self.bystanders = []
        return {}

    def do_flows(self, order: dict[str, Any]) -> dict[str, Any]:
        qos, copies, self.kept = order["qos"], order["copies"], order.get("kept", False)
        flows = [Flow(f"load/{n}/value", qos, copies) for n in range(order["publishers"])]
        self.publishers = [Client(f"pub-{n}", [], qos, flow) for n, flow in enumerate(flows)]
        for flow, publisher in zip(flows, self.publishers, strict=True):
            flow.publisher = publisher
        self.subscribers = [
            Client(f"sub-{n}-{copy}", [flow.topic], qos, flow)
            for n, flow in enumerate(flows)
            for copy in range(copies)
        ]
        found = self.open(self.subscribers + self.publishers)
        gc.collect()
        gc.freeze()
        return found

    def do_away(self, _: dict[str, Any]) -> dict[str, Any]:
        self.close(self.subscribers)
        for flow in self.flows():
            flow.copies = 0
        return {}

    def do_back(self, order: dict[str, Any]) -> dict[str, Any]:
        """Take what was kept for the sessions."""
        for flow in self.flows():
            flow.delivered = 0
        found = self.open(self.subscribers)
        most = order["messages"] * len(self.publishers)
        end = time.monotonic() + STALL_SECONDS
        came = 0
        while came < most and time.monotonic() < end:
            self.turn(0.1)
            now = sum(flow.delivered for flow in self.flows())
            if now > came:
                came, end = now, time.monotonic() + STALL_SECONDS
        return {**found, "came": came, "lost": most - came}

    def do_end(self, _: dict[str, Any]) -> dict[str, Any]:
        self.close(self.subscribers + self.publishers)
        self.subscribers, self.publishers = [], []
        return {}

    def do_heard(self, _: dict[str, Any]) -> dict[str, Any]:
        heard, self.heard = self.heard, 0
        return {"count": heard}

    def do_run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Drive the flows; return what was delivered and what it cost the broker."""
        flows, pids = self.flows(), order["pids"]
        messages = order.get("messages", 0)
        for flow in flows:
            flow.window = order["window"]
            flow.sent = flow.delivered = flow.acknowledged = 0
            flow.most = messages or sys.maxsize
            self.top_up(flow)
        if not messages:
            self.drive(order["warmup"], flows)
        began, count = time.monotonic(), self.progress(flows)
        cpu, own = cpu_seconds(pids), time.process_time()
        self.drive(60.0 if messages else order["seconds"], flows)
        seconds, own = time.monotonic() - began, time.process_time() - own
        cpu, count = cpu_seconds(pids) - cpu, self.progress(flows) - count
        return {
            "count": count,
            "per_second": round(count / seconds, 1),
            "cpu_us": round(cpu * 1e6 / count, 2) if count else None,
            "server_busy": round(cpu / seconds, 3),
            "load_busy": round(own / seconds, 3),
            "lost": self.drain(flows),
        }

    def flows(self) -> list[Flow]:
        return [client.flow for client in self.publishers if client.flow is not None]

    @staticmethod
    def progress(flows: list[Flow]) -> int:
        """Deliveries; where nobody is there to take them, acknowledgements."""
        return sum(flow.delivered if flow.copies else flow.acknowledged for flow in flows)

    def drive(self, seconds: float, flows: list[Flow]) -> None:
        """Serve for so long, or until everything that was asked for has ended."""
        end = time.monotonic() + seconds
        moved = time.monotonic()
        while (now := time.monotonic()) < end:
            if self.turn(0.05):
                moved = now
            elif now - moved > STALL_SECONDS or all(flow.ended >= flow.most for flow in flows):
                return
            if flows[0].most < sys.maxsize and all(flow.ended >= flow.most for flow in flows):
                return

    def drain(self, flows: list[Flow]) -> int:
        """Wait for what is in flight; return how many messages never came."""
        for flow in flows:
            flow.most = flow.sent
        self.drive(60.0, flows)
        return sum(flow.sent - flow.ended for flow in flows)


def send(client: Client, data: bytes | bytearray) -> None:
    """Write all of it; a window is smaller than what the kernel takes."""
    assert client.sock is not None
    client.sock.sendall(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    allow_many_files()
    gc.disable()  # nothing here forms cycles that grow
    Traffic(options.port).serve()


if __name__ == "__main__":
    main()
