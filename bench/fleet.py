"""A fleet of simulated things: N MQTT 3.1.1 connections in one process that answer commands.

Each thing connects, subscribes with QoS 1 to its requests, and answers each request with
a PUBACK and a QoS 1 response, in one write. One thread and a plain epoll loop: this
costs less per command than asyncio with uvloop does (see docs/benchmarks.md), and the
simulator must carry more than any broker it is held against.

stdout speaks JSON lines: ``ready`` when every thing is subscribed, and an answer to each
word on stdin: ``report`` (what was counted since the last report), ``drop`` (close every
connection at once), ``connect`` (connect them all again), ``quit``. The end of stdin,
SIGTERM, SIGINT and ``--seconds`` end it too.

A request whose params end in ``"t0":<CLOCK_MONOTONIC in ns>`` is timed: from ``t0`` to its
arrival (``arrived``), and from ``t0`` to the broker's PUBACK for the response (``done``).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import heapq
import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, Final

import mqtt_wire
from fleet_parts import ROOT, SUCCEEDED, Counts, Thing, thing_name

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""linux/in.h; the socket module does not name it before Python 3.12."""

PORTS_PER_ADDRESS: Final = 4000
READ_MAX: Final = 16 * 1024
TICK: Final = 0.05
"""Seconds: the longest sleep, so that pacing, timers and signals are never much late."""

FAILED: Final = b'{"status":"FAILED","statusReason":{"reasonCode":"SIMULATED","reasonDescription":"as told"}}'


class Fleet:
    """All things, and the loop that serves them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.o = options
        self.things = [Thing(thing_name(options.first + i), i) for i in range(options.things)]
        self.counts = Counts()
        self.epoll = select.epoll()
        self.by_fd: dict[int, Thing] = {}
        self.random = random.Random(options.seed)
        self.always = not (options.silent or options.failing or options.slow_ms or options.jitter_ms)
        self.later: list[tuple[float, int, Thing, bytes, int]] = []
        self.later_count = 0
        self.heads: dict[int, bytes] = {}
        self.running = True
        self.opened = self.subscribed = self.lost = 0
        self.pinged = 0.0
        self.paced = 0.0
        self.told = 0
        self.start = time.monotonic()
        self.connecting = True
        self.generation = 0

    # The loop.

    def run(self) -> None:
        """Serve until told to end."""
        control = sys.stdin.fileno()
        if self.o.control:
            os.set_blocking(control, False)
            self.epoll.register(control, select.EPOLLIN)
        end = self.start + self.o.seconds
        by_fd, on_readable, poll = self.by_fd, self.on_readable, self.epoll.poll
        while self.running and time.monotonic() < end:
            for fd, events in poll(self.tick(), 1024):
                thing = by_fd.get(fd)
                if thing is None:
                    self.on_control(fd)
                    continue
                if events & select.EPOLLOUT:
                    self.flush(thing)
                if events != select.EPOLLOUT:
                    on_readable(thing, fd)
        tell("end", **self.counts.report(), lost=self.lost)

    def on_readable(self, thing: Thing, fd: int) -> None:
        """Something came, or the connection is gone."""
        try:
            data = os.read(fd, READ_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.on_data(thing, data)
        else:
            self.on_lost(thing)

    def tick(self) -> float:
        """Do what time asks for; return how long to sleep at the most."""
        now = time.monotonic()
        if self.connecting:
            self.open_some(now)
        while self.later and self.later[0][0] <= now:
            _, _, thing, topic, t0 = heapq.heappop(self.later)
            if thing.stage == 3:
                self.write(thing, self.response(thing, topic, t0))
        self.pace(now)
        sleep = min(TICK, self.later[0][0] - now) if self.later else TICK
        if self.o.telemetry:
            # To when the next one is due: fifty at once, twenty times a second, are another load.
            sleep = min(sleep, self.counts.began + (self.counts.telemetry + 1) / self.o.telemetry - now)
        elif self.connecting and self.o.rate:
            sleep = min(sleep, 0.001)
        return max(0.0, sleep)

    def on_control(self, fd: int) -> None:
        """Obey the words on stdin."""
        if not self.o.control or fd != sys.stdin.fileno():
            return  # an event of a connection that was closed in this very round
        try:
            words = os.read(fd, 4096).split()
        except BlockingIOError:
            return
        if not words:
            self.running = False
        for word in words:
            if word == b"report":
                tell("report", **self.counts.report(), lost=self.lost, subscribed=self.subscribed)
                self.counts = Counts()
            elif word == b"drop":
                self.drop()
                tell("dropped")
            elif word == b"connect":
                self.generation += 1
                self.start, self.opened, self.connecting = time.monotonic(), 0, True
            elif word == b"quit":
                self.running = False

    # Connections.

    def open_some(self, now: float) -> None:
        """Open connections, as many as rate and pending handshakes allow."""
        due = self.o.things
        if self.o.rate:
            due = min(due, int((now - self.start) * self.o.rate) + 1)
        while self.opened < due and self.opened - self.subscribed - self.lost < self.o.pending:
            self.open(self.things[self.opened])
            self.opened += 1

    def open(self, thing: Thing) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.source(thing) != self.o.host:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.source(thing), 0))
        code = sock.connect_ex((self.o.host, self.o.port))
        if code not in {0, errno.EINPROGRESS}:
            raise SystemExit(f"fleet: cannot connect to {self.o.host}:{self.o.port}: {os.strerror(code)}")
        thing.sock, thing.stage, thing.rest, thing.next_id = sock, 1, b"", 1
        thing.timed.clear()
        self.by_fd[sock.fileno()] = thing
        thing.unsent = mqtt_wire.connect(
            thing.name,
            username=thing.name,
            password=self.o.password.replace("%t", thing.name),
            keepalive=self.o.keepalive,
        )
        # Written when the connection stands.
        self.epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def source(self, thing: Thing) -> str:
        """The address that a thing connects from.

        The kernel looks for a free port the longer, the more of an address's 28,000 are in
        use or still in TIME_WAIT: that would be measured instead of the broker.
        """
        if not self.o.host.startswith("127."):
            return str(self.o.host)
        return f"127.0.{self.generation % 250}.{1 + thing.number // PORTS_PER_ADDRESS}"

    def on_ready(self, thing: Thing) -> None:
        """A thing is subscribed; tell when it was the last."""
        thing.stage = 3
        self.subscribed += 1
        if self.subscribed + self.lost == self.o.things and self.opened == self.o.things:
            self.connecting = False
            seconds = time.monotonic() - self.start
            tell("ready", things=self.subscribed, lost=self.lost, seconds=round(seconds, 4))
            gc.collect()
            gc.freeze()

    def on_lost(self, thing: Thing) -> None:
        """The broker closed the connection."""
        if thing.stage == 3:
            self.subscribed -= 1
        self.lost += 1
        self.close(thing)

    def close(self, thing: Thing) -> None:
        if thing.sock is not None:
            with contextlib.suppress(KeyError):
                del self.by_fd[thing.sock.fileno()]
            thing.sock.close()  # leaves the epoll set by itself
        thing.sock, thing.stage = None, 0

    def drop(self) -> None:
        """Close every connection at once, without DISCONNECT."""
        for thing in self.things:
            self.close(thing)
        self.subscribed = self.lost = 0

    # Packets.

    def on_data(self, thing: Thing, data: bytes) -> None:
        """Take packets in and answer them with a single write."""
        if thing.rest:
            data = thing.rest + data
            thing.rest = b""
        out: list[bytes] = []
        end = 0
        for first, body, end in mqtt_wire.packets(data):
            kind = first & 0xF0
            if kind == mqtt_wire.PUBLISH:
                out.append(self.on_request(thing, data[body:end], first))
            elif kind == mqtt_wire.PUBACK:
                self.counts.acknowledged += 1
                if thing.timed:
                    self.on_timed(thing, data[body] << 8 | data[body + 1])
            elif kind != mqtt_wire.PINGRESP:
                out.append(self.on_handshake(thing, kind, data[body:end]))
        if end < len(data):
            thing.rest = data[end:]
        if answer := b"".join(out):
            self.write(thing, answer)

    def on_handshake(self, thing: Thing, kind: int, packet: bytes) -> bytes:
        """Take CONNACK and SUBACK; return what follows."""
        if kind == mqtt_wire.CONNACK:
            if packet[1]:
                raise SystemExit(f"fleet: {thing.name} was refused: CONNACK {packet[1]}")
            thing.stage = 2
            return mqtt_wire.subscribe(1, f"{self.o.root}/things/{thing.name}/executions/+/request")
        if kind != mqtt_wire.SUBACK or packet[2] > 2:
            raise SystemExit(f"fleet: {thing.name} may not subscribe: {packet.hex()}")
        self.on_ready(thing)
        return b""

    def on_request(self, thing: Thing, packet: bytes, first: int) -> bytes:
        """Take a request; return the PUBACK and, unless it comes later or never, the response."""
        counts = self.counts
        counts.requests += 1
        if first & 0x08:
            counts.repeated += 1
        behind = 2 + (packet[0] << 8 | packet[1])
        topic = packet[2:behind]
        acknowledgement = b"\x40\x02" + packet[behind : behind + 2] if first & 0x06 else b""
        at = packet.find(b'"t0":', behind)
        t0 = 0
        if at > 0:
            t0 = int(packet[at + 5 : packet.find(b"}", at)])
            counts.arrived.append(time.monotonic_ns() - t0)
        if self.always:
            return acknowledgement + self.response(thing, topic, t0)
        return acknowledgement + self.answer_as_told(thing, topic, t0)

    def on_timed(self, thing: Thing, packet_id: int) -> None:
        """The broker acknowledged a response whose command says when it was sent."""
        t0 = thing.timed.pop(packet_id, 0)
        if t0:
            self.counts.done.append(time.monotonic_ns() - t0)

    def answer_as_told(self, thing: Thing, topic: bytes, t0: int) -> bytes:
        """Answer, or not, or later."""
        o = self.o
        if self.random.random() < o.silent:
            return b""
        if not (o.slow_ms or o.jitter_ms):
            return self.response(thing, topic, t0)
        due = time.monotonic() + (o.slow_ms + self.random.random() * o.jitter_ms) / 1000
        self.later_count += 1  # breaks ties, so that things are never compared
        heapq.heappush(self.later, (due, self.later_count, thing, topic, t0))
        return b""

    def response(self, thing: Thing, topic: bytes, t0: int) -> bytes:
        """The PUBLISH that answers a request that came on ``topic``."""
        self.counts.responses += 1
        packet_id = thing.next_id
        thing.next_id = packet_id + 1 if packet_id < 65535 else 1
        if t0:
            thing.timed[packet_id] = t0
        if self.o.failing and self.random.random() < self.o.failing:
            return mqtt_wire.publish(topic[:-7] + b"response", FAILED, packet_id)
        size = len(topic)
        head = self.heads.get(size)
        if head is None:  # the same for all topics of one length
            length = 2 + size + 1 + 2 + len(SUCCEEDED)
            head = self.heads[size] = b"\x32" + mqtt_wire.varint(length) + (size + 1).to_bytes(2, "big")
        return b"%b%bresponse%b%b" % (head, topic[:-7], packet_id.to_bytes(2, "big"), SUCCEEDED)

    def pace(self, now: float) -> None:
        """Send keep-alives and telemetry evenly over time and things."""
        if self.connecting:
            self.paced = now
            return
        passed, self.paced = now - self.paced, now
        if self.o.keepalive:
            self.pinged += passed * len(self.things) / (self.o.keepalive / 2)
            while self.pinged >= 1:
                self.pinged -= 1
                self.next_write(mqtt_wire.PINGREQ)
        if self.o.telemetry:
            due = int((now - self.counts.began) * self.o.telemetry)
            for _ in range(due - self.counts.telemetry):
                self.counts.telemetry += 1
                topic = f"telemetry/{self.things[self.told % len(self.things)].name}"
                self.next_write(mqtt_wire.publish(topic, b'{"temperature":21.5,"humidity":40}'))

    def next_write(self, packet: bytes) -> None:
        """Write to the thing whose turn it is."""
        thing = self.things[self.told % len(self.things)]
        self.told += 1
        if thing.stage == 3:
            self.write(thing, packet)

    def write(self, thing: Thing, data: bytes) -> None:
        """Write now; what the kernel does not take waits for EPOLLOUT."""
        sock = thing.sock
        if sock is None:
            return
        if thing.unsent:
            thing.unsent += data
            return
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.on_lost(thing)
            return
        if sent < len(data):
            thing.unsent = data[sent:]
            self.epoll.modify(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def flush(self, thing: Thing) -> None:
        """The kernel takes bytes again."""
        data, thing.unsent = thing.unsent, b""
        if data:
            self.write(thing, data)
        if not thing.unsent and thing.sock is not None:
            self.epoll.modify(thing.sock.fileno(), select.EPOLLIN)


def tell(event: str, **fields: Any) -> None:
    """Write one JSON line."""
    print(json.dumps({"event": event, **fields}), flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--things", type=int, default=100, help="how many (100)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (0)")
    parser.add_argument("--root", default=ROOT, help="the topic root (%(default)s)")
    parser.add_argument("--password", default="", help="%%t stands for the thing's name (none)")
    parser.add_argument("--keepalive", type=int, default=300, help="seconds; 0: none (300)")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="new connections per second; 0: unbounded (0)"
    )
    # Below the backlog of 100 that brokers listen with: a SYN dropped there comes again after a second.
    parser.add_argument("--pending", type=int, default=64, help="handshakes under way at once (64)")
    parser.add_argument("--silent", type=float, default=0.0, help="share of requests never answered (0)")
    parser.add_argument("--failing", type=float, default=0.0, help="share of answers that say FAILED (0)")
    parser.add_argument("--slow-ms", type=float, default=0.0, help="answer after so many ms (0)")
    parser.add_argument("--jitter-ms", type=float, default=0.0, help="and up to so many more (0)")
    parser.add_argument("--telemetry", type=float, default=0.0, help="QoS 0 messages per second from all (0)")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="end after so long, whatever happens (600)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-control", dest="control", action="store_false", help="do not read stdin")
    return parser


def main() -> None:
    options = arguments().parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # nothing here forms cycles
    fleet = Fleet(options)

    def end(*_: object) -> None:
        fleet.running = False

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    fleet.run()


if __name__ == "__main__":
    main()
