"""A broker that is killed again and again, a fleet that keeps coming back, and callers that keep account.

Everything outside the broker lives in this process and remembers what it was told: callers
every 201 and every verdict they read, devices every request they saw and every response whose
PUBACK they got. At the end the broker is held against all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.processes import BIN, TOKEN
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.frames import FrameScanner
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType
from thingctl_protocol.topics import Kind, Topics

TERMINAL = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED"}
TTL_LONGEST = 6
PATIENCE = 4.0
"""Seconds that a command may take to reach a device that is there, on a machine that is busy."""
TOPICS = Topics()


class BrokerProcess:
    """``thingctl serve`` on ports and a data directory that outlive it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.mqtt, self.http = _free_port(), _free_port()
        self._log = directory / "log"
        self._command = [
            BIN / "thingctl", "serve", "--open", "--data-dir", directory / "data",
            "--mqtt", f"127.0.0.1:{self.mqtt}", "--http", f"127.0.0.1:{self.http}", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it need not listen yet."""
        self.starts += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | {"THINGCTL_ADMIN_TOKEN": TOKEN},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, seconds: float = 60.0) -> None:
        """Wait until it answers."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, EOFError), contextlib.closing(Caller(self.http)) as caller:
                if (await caller.ask("GET", "/healthz"))[0] == 200:
                    return
            assert self._process is not None
            assert self._process.poll() is None, self.said()[-3000:]
            assert time.monotonic() < end, self.said()[-3000:]
            await asyncio.sleep(0.01)

    def kill(self) -> None:
        """``kill -9``: no goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """Ask it to end; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def end(self) -> None:
        """See to it that it no longer runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def said(self) -> str:
        """All it has logged, of every life."""
        return self._log.read_text(errors="replace")


class Caller:
    """One HTTP connection at a time, opened when needed. OSError or EOFError: it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return the status, and the body as JSON."""
        try:
            async with asyncio.timeout(30):
                return await self._ask(method, path, body, headers or {})
        except (OSError, EOFError, asyncio.CancelledError):
            self.close()
            raise

    async def _ask(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self._streams[1].get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {TOKEN}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(content)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in head if line.startswith("content-length:"))
        return int(head[0].split()[1]), json.loads(await reader.readexactly(length))

    def close(self) -> None:
        """Let the connection go."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Device:
    """A thing that runs each command once, whatever happens to its connection."""

    def __init__(self, name: str, port: int, storm: Storm) -> None:
        self.name = name
        self.connected = asyncio.Event()
        self.steady = False
        """From now on it stays connected."""
        self.seen: Counter[str] = Counter()
        self.verdicts: dict[str, dict[str, Any]] = {}
        """What it has said of each execution; by heart, as an agent's own journal would."""
        self.acknowledged: dict[str, dict[str, Any]] = {}
        """The verdicts whose PUBACK it got."""
        self.expired: list[str] = []
        self._port = port
        self._storm = storm
        self._random = random.Random(f"{storm.seed} {name}")
        self._outbox: dict[int, tuple[str, dict[str, Any]]] = {}
        self._packet_id = 0
        self._writer: asyncio.StreamWriter | None = None

    async def live(self) -> None:
        """Connect, serve, lose the connection, come back; until cancelled."""
        while True:
            try:
                with contextlib.suppress(OSError, EOFError, TimeoutError):
                    await self._serve()
            finally:
                self.connected.clear()
                if self._writer is not None:
                    self._writer.transport.abort()
                    self._writer = None
            await asyncio.sleep(0.05 + (0 if self.steady else self._random.random() * 0.3))

    async def _serve(self) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writer.write(packets.encode_connect(Connect(self.name, True, 60, None, None, None)))
        wanted = [(TOPICS.request_filter(self.name), 1), (TOPICS.cancel_filter(self.name), 1)]
        self._writer.write(packets.encode_subscribe(1, wanted))
        for packet_id, (execution_id, said) in self._outbox.items():
            self._write(packet_id, execution_id, said)
        scanner = FrameScanner(1 << 20)
        until = time.monotonic() + self._random.expovariate(1 / 3.0)
        while True:
            left = until - time.monotonic()
            if left <= 0 and not self.steady:
                return  # vanishes without a word, and with it every PUBACK under way
            try:
                async with asyncio.timeout(1.0 if self.steady else left):
                    data = await reader.read(1 << 16)
            except TimeoutError:
                continue
            if not data:
                return
            for frame in scanner.feed(data):
                match PacketType(frame.first >> 4):
                    case PacketType.SUBACK:
                        self.connected.set()
                    case PacketType.PUBLISH:
                        self._take(packets.parse_publish(frame))
                    case PacketType.PUBACK:
                        execution_id, said = self._outbox.pop(packets.parse_packet_id(frame))
                        self.acknowledged[execution_id] = said
                        self._storm.count["responses acknowledged"] += 1

    def _take(self, publish: packets.Publish) -> None:
        assert self._writer is not None
        topic = TOPICS.parse(publish.topic)
        if topic is None or topic.execution_id is None:
            return
        execution_id = topic.execution_id
        if topic.kind is Kind.CANCEL:
            self._writer.write(CODEC_3.encode_puback(publish.packet_id))
            return
        request = json.loads(publish.payload)
        if time.time() > request["timestamp"] + 1 + request["ttl"] + 0.5:  # the timestamp is rounded down
            self.expired.append(execution_id)
        self.seen[execution_id] += 1
        if publish.dup:
            self._storm.count["requests sent again"] += 1
        if self._random.random() < 0.05 and not self.steady:
            return  # neither PUBACK nor answer: it died at this very moment
        self._writer.write(CODEC_3.encode_puback(publish.packet_id))
        how = request["params"]["how"]
        if how == "silent":
            return
        said: dict[str, Any] = {"status": how}
        if how == "SUCCEEDED":
            said["result"] = {"n": request["params"]["n"]}
        elif how != "CANCELED":
            said["statusReason"] = {"reasonCode": "X", "reasonDescription": str(request["params"]["n"])}
        if self._random.random() < 0.2:
            self._say(execution_id, {"status": "IN_PROGRESS"}, note=False)
        self._say(execution_id, said, note=True)

    def _say(self, execution_id: str, said: dict[str, Any], *, note: bool) -> None:
        self._packet_id = self._packet_id % 65535 + 1
        if note:
            self.verdicts[execution_id] = said
            self._outbox[self._packet_id] = execution_id, said
            self._write(self._packet_id, execution_id, said)
        elif self._writer is not None:
            topic = TOPICS.response(self.name, execution_id).encode()
            self._writer.write(CODEC_3.encode_publish(topic, json.dumps(said).encode()))

    def _write(self, packet_id: int, execution_id: str, said: dict[str, Any]) -> None:
        assert self._writer is not None
        topic = TOPICS.response(self.name, execution_id).encode()
        self._writer.write(
            CODEC_3.encode_publish(topic, json.dumps(said).encode(), qos=1, packet_id=packet_id)
        )


@dataclass
class Accepted:
    """What a caller was told with a 201, and what it has read since."""

    thing: str
    n: int
    ttl: int
    at: float
    verdict: tuple[Any, ...] | None = None


@dataclass
class Storm:
    """The whole of it."""

    broker: BrokerProcess
    seed: int
    things: int = 20
    callers: int = 10
    pause: float = 0.01
    """Seconds that a caller rests between two commands."""
    accepted: dict[str, Accepted] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """The execution that each idempotency key was answered with."""
    count: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    sending: bool = True

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.devices = [Device(f"thing-{i}", self.broker.mqtt, self) for i in range(self.things)]

    @contextlib.asynccontextmanager
    async def blowing(self) -> AsyncIterator[None]:
        """Let devices and callers do what they do, until the end of the block."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(device.live()) for device in self.devices]
            tasks += [group.create_task(self._call(i)) for i in range(self.callers)]
            tasks += [group.create_task(self._read()), group.create_task(self._cancel())]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def kill_at_a_random_moment(self) -> None:
        """Let it run for a while, perhaps not even until it serves; kill it, and start it again."""
        if self._random.random() < 0.2:
            await asyncio.sleep(self._random.uniform(0.0, 1.2))
            self.count["kills before it served"] += 1
        else:
            await self.broker.ready()
            await asyncio.sleep(self._random.uniform(0.0, 1.5))
        self.broker.kill()
        self.count["kills"] += 1
        self.broker.start()

    # Callers.

    async def _call(self, number: int) -> None:
        chance = random.Random(f"{self.seed} caller {number}")
        with contextlib.closing(Caller(self.broker.http)) as caller:
            await self._send_for_ever(caller, chance, number)

    async def _send_for_ever(self, caller: Caller, chance: random.Random, n: int) -> None:
        while True:
            await asyncio.sleep(self.pause if self.sending else 0.1)
            if not self.sending:
                continue
            n += self.callers
            thing = chance.choice(self.devices).name
            ttl = chance.choice([1, 2, TTL_LONGEST])
            how = chance.choice(["SUCCEEDED"] * 6 + ["FAILED", "REJECTED", "CANCELED", "silent"])
            body = {"thingId": thing, "action": "act", "params": {"n": n, "how": how}, "ttl": ttl}
            key = f"key-{n}" if chance.random() < 0.5 else ""
            await self._post(caller, body, key, chance)

    async def _post(self, caller: Caller, body: dict[str, Any], key: str, chance: random.Random) -> None:
        """Send a command; with a key, until it is known to be accepted, and now and then once more."""
        headers = {"idempotency-key": key} if key else {}
        again = 0
        while True:
            began = time.time()
            try:
                status, answer = await caller.ask("POST", "/api/v1/commands", body, headers)
            except (OSError, EOFError):
                if not key:
                    return  # nobody knows whether it was accepted; that is what keys are for
                self.count["keyed commands sent again after a kill"] += 1
                await asyncio.sleep(0.05)
                continue
            if status == 201:
                self._note(answer, body, key, began)
                if key and again < 1 and chance.random() < 0.1:
                    again += 1
                    await asyncio.sleep(chance.random())
                    continue
                return
            self.count[f"POST answered {status}"] += 1
            if status not in {404, 429, 503}:  # 404: no thing of that name has connected yet
                self.faults.append(f"POST {body} was answered with {status}: {answer}")
            return

    def _note(self, answer: dict[str, Any], body: dict[str, Any], key: str, began: float) -> None:
        execution_id = answer["executionId"]
        if key and self.keys.setdefault(key, execution_id) != execution_id:
            self.faults.append(f"{key} stands for {self.keys[key]} and for {execution_id}")
        if execution_id not in self.accepted:
            self.count["201"] += 1
            self.accepted[execution_id] = Accepted(body["thingId"], body["params"]["n"], body["ttl"], began)

    async def _read(self) -> None:
        with contextlib.closing(Caller(self.broker.http)) as caller:
            while True:
                await asyncio.sleep(0.005)
                if not self.accepted:
                    continue
                execution_id = self._random.choice(list(self.accepted)[-500:])
                with contextlib.suppress(OSError, EOFError):
                    self.hold(execution_id, *await caller.ask("GET", f"/api/v1/commands/{execution_id}"))

    async def _cancel(self) -> None:
        with contextlib.closing(Caller(self.broker.http)) as caller:
            while True:
                await asyncio.sleep(0.1)
                if not self.accepted or not self.sending:
                    continue
                execution_id = self._random.choice(list(self.accepted)[-20:])
                with contextlib.suppress(OSError, EOFError):
                    status, _ = await caller.ask("POST", f"/api/v1/commands/{execution_id}/cancel")
                    self.count[f"cancel answered {status}"] += 1
                    if status not in {200, 409}:
                        self.faults.append(f"the cancel of {execution_id} was answered with {status}")

    # The account.

    def hold(self, execution_id: str, status: int, answer: dict[str, Any]) -> None:
        """Hold what the broker says of an execution against what was known of it."""
        known = self.accepted[execution_id]
        if status != 200:
            self.faults.append(f"{execution_id} was accepted, and now: {status} {answer}")
            return
        self.count["reads"] += 1
        if (answer["thingId"], answer["params"]["n"], answer["ttl"]) != (known.thing, known.n, known.ttl):
            self.faults.append(f"{execution_id} is another command now: {answer}")
        if answer["status"] not in TERMINAL:
            if known.verdict is not None:
                self.faults.append(f"{execution_id} had ended: {known.verdict}, and now: {answer}")
            return
        verdict = answer["status"], answer.get("result"), answer.get("statusReason"), answer["endedAt"]
        if known.verdict is None:
            known.verdict = verdict
            self.count[f"ended {answer['status']}"] += 1
        elif known.verdict != verdict:
            self.faults.append(f"{execution_id} ended as {known.verdict}, and now as {verdict}")

    async def calm(self) -> None:
        """No more kills, no more commands; every device stays; everything comes to its end."""
        await self.broker.ready()
        for device in self.devices:
            device.steady = True
        for device in self.devices:
            async with asyncio.timeout(20):
                await device.connected.wait()
        since = time.time()
        await asyncio.sleep(1.0)
        self.sending = False
        await self.broker.ready()
        everything = await self._everything()
        end = time.monotonic() + TTL_LONGEST + 15
        while any(found["status"] not in TERMINAL for found in everything.values()):
            assert time.monotonic() < end, "some executions never end"
            await asyncio.sleep(0.3)
            everything = await self._everything()
        self._settle(everything, since)

    def _settle(self, everything: dict[str, dict[str, Any]], since: float) -> None:
        for execution_id in self.accepted:
            if execution_id in everything:
                self.hold(execution_id, 200, everything[execution_id])
            else:
                self.faults.append(f"{execution_id} was accepted and is unknown")
        commands = Counter(found["params"]["n"] for found in everything.values())
        self.faults += [f"command {n} has {many} executions" for n, many in commands.items() if many > 1]
        by_name = {device.name: device for device in self.devices}
        for execution_id, found in everything.items():
            self._settle_one(execution_id, found, by_name[found["thingId"]], since)
        self.count["executions"] = len(everything)
        self.count["late"] = sum("late" in found for found in everything.values())
        for device in self.devices:
            self.faults += [f"{device.name} saw {name} expired" for name in device.expired]
            self.faults += [
                f"{device.name} saw {name}, unknown" for name in device.seen if name not in everything
            ]

    def _settle_one(self, execution_id: str, found: dict[str, Any], device: Device, since: float) -> None:
        seen, verdict = execution_id in device.seen, device.acknowledged.get(execution_id)
        if verdict is not None:
            kept = [found, *([found["late"]] if "late" in found else [])]
            if not any(_says(one, verdict) for one in kept):
                self.faults.append(f"{device.name} was acknowledged {verdict}, but it is {found}")
        if found["status"] == "TIMED_OUT" and found["retrySafe"] and seen:
            self.faults.append(f"{device.name} saw {execution_id}, yet it is called safe to send again")
        if not seen and found["status"] not in {"TIMED_OUT", "CANCELED"}:
            self.faults.append(f"{execution_id} ended {found['status']}, and its device never saw it")
        known = self.accepted.get(execution_id)
        waited = known is not None and known.at < since and known.at + known.ttl > since + PATIENCE
        # What is to be canceled is not sent again after a restart, only its cancel.
        canceled = found["status"] == "CANCELED" or found.get("cancelRequestedAt")
        if waited and not seen and not canceled:
            self.faults.append(
                f"{execution_id} waited, its device was there, and it was not delivered: {found}"
            )

    async def _everything(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        cursor: str | None = ""
        with contextlib.closing(Caller(self.broker.http)) as caller:
            while cursor is not None:
                status, page = await caller.ask("GET", f"/api/v1/commands?limit=500{cursor}")
                assert status == 200, page
                found |= {one["executionId"]: one for one in page["executions"]}
                cursor = None if page["nextCursor"] is None else f"&cursor={page['nextCursor']}"
        return found


def _says(record: dict[str, Any], verdict: dict[str, Any]) -> bool:
    return all(record.get(name) == verdict.get(name) for name in ("status", "result", "statusReason"))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def blow(directory: Path, kills: int, seed: int, tell: Callable[[str], object] = print) -> Storm:
    """Kill a broker ``kills`` times under load, then hold it against everything it has ever said."""
    broker = BrokerProcess(directory)
    storm = Storm(broker, seed)
    broker.start()
    try:
        async with storm.blowing():
            await broker.ready()
            for i in range(kills):
                await storm.kill_at_a_random_moment()
                if i % 10 == 9:
                    tell(f"{i + 1} kills, {storm.count['201']} accepted, {len(storm.faults)} faults")
                if storm.faults:
                    break
            await storm.calm()
        assert broker.terminate() == 0
    finally:
        broker.end()
    return storm
