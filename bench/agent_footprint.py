"""What an agent costs a device, beside its peers. One command:

    .venv/bin/python bench/agent_footprint.py            # all peers, about four minutes
    .venv/bin/python bench/agent_footprint.py --only agent paho --seconds 5

Each peer is one small program in ``bench/agent_peers`` with a virtual environment of its own:
it connects, subscribes, and answers each request. All of them talk to one mosquitto.
A peer that cannot be installed is named and left out. Prints a table and, last, JSON.

RSS idle: VmRSS a second after it subscribed. Start: from its exec to SUBACK, median; and the
processor time it took, which a busy machine changes less. Wake-ups:
voluntary context switches of all its threads while idle. CPU: user and system time per command
at 50 commands/s. Disk: bytes handed to the disk per command (/proc/PID/io).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "agent_peers"
RATE = 50.0


class Peer(NamedTuple):
    """How to install and how to talk to one peer. ``wire``: the topics it understands."""

    name: str
    requirements: tuple[str, ...]
    wire: str = "fleets"
    tls: bool = False
    options: tuple[str, ...] = ()


PEERS_KNOWN = [
    Peer("agent", (str(ROOT),)),
    Peer("agent-not-durable", (str(ROOT),)),
    Peer("agent-tls", (str(ROOT),), tls=True),
    Peer("paho", ("paho-mqtt",)),
    Peer("aiomqtt", ("aiomqtt",)),
    Peer("gmqtt", ("gmqtt",)),
    Peer("awsiotsdk", ("awsiotsdk",)),
    Peer("azure-iot-device", ("azure-iot-device",), wire="azure", tls=True),
    Peer("tb-mqtt-client", ("tb-mqtt-client",), wire="thingsboard"),
]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- the broker


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def port_is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def make_certificates(directory: Path) -> None:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = ("-addext", "subjectAltName=DNS:localhost", "-subj", "/CN=localhost")
    files = ("-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem"))
    subprocess.run(["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True)


@contextlib.contextmanager
def mosquitto(directory: Path) -> Iterator[dict[str, Any]]:
    """A broker with a plain and, if openssl is there, a TLS listener; azure insists on port 8883."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit("mosquitto is not installed; apt-get install mosquitto")
    told: dict[str, Any] = {"port": free_port(), "tls_port": None, "ca": str(directory / "cert.pem")}
    config = f"allow_anonymous true\nuser root\nset_tcp_nodelay true\nlistener {told['port']} 127.0.0.1\n"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        make_certificates(directory)
        told["tls_port"] = 8883 if port_is_free(8883) else free_port()
        config += f"listener {told['tls_port']} 127.0.0.1\n"
        config += f"certfile {directory}/cert.pem\nkeyfile {directory}/key.pem\n"
    (directory / "mosquitto.conf").write_text(config)
    with (directory / "mosquitto.log").open("wb") as log:
        broker = subprocess.Popen([program, "-c", str(directory / "mosquitto.conf")], stderr=log)
    try:
        deadline = time.monotonic() + 10
        while port_is_free(told["port"]):
            if time.monotonic() > deadline:
                sys.exit((directory / "mosquitto.log").read_text())
            time.sleep(0.05)
        yield told
    finally:
        broker.terminate()
        broker.wait(10)


# -- installing


def install(peer: Peer, cache: Path) -> Path | None:
    """Make the peer's environment; returns its Python, or None when it cannot be installed."""
    home = cache / peer.name.split("-not-")[0].removesuffix("-tls")
    python = home / "bin" / "python"
    if python.exists() and (home / ".done").exists() and not peer.name.startswith("agent"):
        return python
    say(f"installing {peer.name} …")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    pip = [str(python), "-m", "pip", "install", "-q", "--upgrade"]
    if peer.name.startswith("agent"):
        pip += ["--force-reinstall", "-c", str(ROOT / "constraints.txt")]
    try:
        if not python.exists():
            run_quietly([sys.executable, "-m", "venv", str(home)], environment)
        run_quietly([*pip, *peer.requirements], environment)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        say(f"  cannot be installed: {error}")
        return None
    (home / ".done").touch()
    return python


def run_quietly(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env=environment)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])


def size(python: Path) -> tuple[int, float]:
    """Distributions and megabytes of an environment, without pip and setuptools."""
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps([[d.metadata['Name'], sum(f.locate().stat().st_size for f in (d.files or []) "
        "if f.locate().exists())] for d in m.distributions()]))"
    )
    listed = json.loads(
        subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    )
    kept = [bytes_ for name, bytes_ in listed if name.lower() not in {"pip", "setuptools", "wheel"}]
    return len(kept), sum(kept) / 1e6


# -- running


class Process:
    """One run of a peer."""

    def __init__(self, peer: Peer, python: Path, broker: dict[str, Any], directory: Path) -> None:
        state = directory / peer.name  # as on a device: only its first start finds none
        state.mkdir(exist_ok=True)
        environment = {
            k: v for k, v in os.environ.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
        }
        environment |= {
            "BENCH_PORT": str(broker["tls_port"] if peer.tls else broker["port"]),
            "BENCH_CA": broker["ca"],
            "BENCH_STATE": str(state),
            "BENCH_TLS": "1" if peer.tls else "",
        }
        self._log = (state / "log").open("wb")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            self._command(peer, python, broker, state), env=environment, stdout=self._log, stderr=self._log
        )
        while not any(
            word in (text := (state / "log").read_bytes()) for word in (b"subscribed", b"ready for")
        ):
            if self.process.poll() is not None or time.monotonic() - begun > 30:
                self.end()
                raise RuntimeError(text.decode(errors="replace")[-500:] or "it did not subscribe")
            time.sleep(0.001)
        self.start = time.monotonic() - begun

    @staticmethod
    def _command(peer: Peer, python: Path, broker: dict[str, Any], state: Path) -> list[str]:
        if not peer.name.startswith("agent"):
            return [str(python), str(PEERS / f"{peer.name.replace('-', '_')}_peer.py")]
        source = (PEERS / "agent_peer.py").read_text()
        if peer.name == "agent-not-durable":
            source = source.replace("@agent.action\n", "@agent.action(durable=False)\n")
        if not (state / "actions.py").exists():
            (state / "actions.py").write_text(source)
        url = f"mqtts://localhost:{broker['tls_port']}" if peer.tls else f"mqtt://127.0.0.1:{broker['port']}"
        words = [str(python.parent / "thingctl-agent"), "run", str(state / "actions.py"), "--thing", "bench"]
        words += ["--url", url, "--state-dir", str(state), "--wall-clock", "trust"]
        if peer.tls:
            (state / "agent.toml").write_text(f'[tls]\nca = "{broker["ca"]}"\n')
            words += ["--config", str(state / "agent.toml")]
        return words

    def rss(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
        raise RuntimeError("no VmRSS")

    def switches(self) -> int:
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    def cpu(self) -> float:
        """Seconds of user and system time; children and ended threads included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def written(self) -> int:
        text = Path(f"/proc/{self.process.pid}/io").read_text()
        return int(text.split("write_bytes: ")[1].split()[0])

    def end(self) -> float:
        """Kill it; returns the seconds of user and system time that it took in all."""
        self.process.kill()
        _, self.process.returncode, usage = os.wait4(self.process.pid, 0)
        self._log.close()
        return usage.ru_utime + usage.ru_stime


def _without_delay(_client: paho.Client, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Operator:
    """Sends requests in the form a peer understands and counts the answers."""

    def __init__(self, broker: dict[str, Any], wire: str) -> None:
        self.answers = 0
        self._wire = wire
        self._lock = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"operator-{uuid.uuid4().hex[:8]}")
        self.client.on_message = self._on_message
        self.client.on_socket_open = _without_delay
        self.client.on_subscribe = lambda *_: self._lock.set()
        self.client.connect("127.0.0.1", broker["port"])
        self.client.loop_start()
        topics = {
            "fleets": "$emqx/commands/things/+/executions/+/response",
            "azure": "$iothub/methods/res/#",
            "thingsboard": "v1/devices/me/rpc/response/+",
        }
        self.client.subscribe(topics[wire], 1)
        if not self._lock.wait(10):
            raise RuntimeError("the operator could not subscribe")

    def _on_message(self, *_: object) -> None:
        self.answers += 1

    def send(self, number: int) -> None:
        params: dict[str, object] = {"value": number}
        if self._wire == "fleets":
            topic = f"$emqx/commands/things/bench/executions/{uuid.uuid4()}/request"
            body = {
                "commandId": "c",
                "action": "set",
                "params": params,
                "timestamp": int(time.time()),
                "ttl": 60,
            }
        elif self._wire == "azure":
            topic, body = f"$iothub/methods/POST/set/?$rid={number + 1}", params
        else:
            topic, body = f"v1/devices/me/rpc/request/{number + 1}", {"method": "set", "params": params}
        self.client.publish(topic, json.dumps(body), qos=1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def measure(
    peer: Peer, python: Path, broker: dict[str, Any], directory: Path, seconds: float
) -> dict[str, Any]:
    starts, cpu = [], []
    for _ in range(6):
        run = Process(peer, python, broker, directory)
        starts.append(run.start)
        cpu.append(run.end())
    run = Process(peer, python, broker, directory)
    try:
        time.sleep(1)
        found: dict[str, Any] = {
            "start_ms": round(statistics.median(starts[1:]) * 1000, 1),
            "start_cpu_ms": round(statistics.median(cpu[1:]) * 1000, 1),
            "rss_mb": round(run.rss(), 1),
        }
        before, begun = run.switches(), time.monotonic()
        time.sleep(seconds * 2)
        found["wakeups_per_s"] = round((run.switches() - before) / (time.monotonic() - begun), 3)
        found |= load(run, peer, broker, seconds)
    finally:
        run.end()
    return found


def load(run: Process, peer: Peer, broker: dict[str, Any], seconds: float) -> dict[str, Any]:
    operator = Operator(broker, peer.wire)
    try:
        wait_for(lambda: operator.answers >= 20, operator.send, 20)  # warm
        cpu, written, answers, begun = run.cpu(), run.written(), operator.answers, time.monotonic()
        count = int(seconds * RATE)
        for number in range(count):
            operator.send(1000 + number)
            time.sleep(max(0.0, begun + (number + 1) / RATE - time.monotonic()))
        deadline = time.monotonic() + 5
        while operator.answers - answers < count and time.monotonic() < deadline:
            time.sleep(0.01)
        done = operator.answers - answers
        return {
            "answered": f"{done}/{count}",
            "cpu_ms_per_command": round((run.cpu() - cpu) / max(1, done) * 1000, 3),
            "disk_kib_per_command": round((run.written() - written) / max(1, done) / 1024, 2),
            "rss_after_mb": round(run.rss(), 1),
        }
    finally:
        operator.close()


def wait_for(condition: Callable[[], bool], send: Callable[[int], None], count: int) -> None:
    for number in range(count):
        send(number)
        time.sleep(0.02)
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("it does not answer")
        time.sleep(0.01)


COLUMNS = {
    "packages": "packages",
    "mb": "MB",
    "start_ms": "start ms",
    "start_cpu_ms": "start CPU ms",
    "rss_mb": "idle RSS MB",
    "rss_after_mb": "RSS under load",
    "wakeups_per_s": "wake-ups/s",
    "cpu_ms_per_command": "CPU ms/command",
    "disk_kib_per_command": "disk KiB/command",
    "answered": "answered",
}


def show(results: dict[str, dict[str, Any]]) -> None:
    rows = [["peer", *COLUMNS.values()]]
    rows += [[name, *(str(found.get(key, "")) for key in COLUMNS)] for name, found in results.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="PEER", help=", ".join(p.name for p in PEERS_KNOWN))
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of load per peer; twice as many of idling"
    )
    parser.add_argument("--cache", default=str(ROOT / "bench" / "results" / "peers"), help="the environments")
    arguments = parser.parse_args()
    cache = Path(arguments.cache)
    cache.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="thingctl-bench-") as name, mosquitto(Path(name)) as broker:
        for peer in PEERS_KNOWN:
            if arguments.only and peer.name not in arguments.only:
                continue
            if peer.tls and broker["tls_port"] is None:
                left_out[peer.name] = "openssl is missing"
                continue
            python = install(peer, cache)
            if python is None:
                left_out[peer.name] = "cannot be installed"
                continue
            say(f"measuring {peer.name} …")
            try:
                packages, megabytes = size(python)
                found = measure(peer, python, broker, Path(name), arguments.seconds)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                left_out[peer.name] = str(error)
                say(f"  left out: {error}")
                continue
            results[peer.name] = {"packages": packages, "mb": round(megabytes, 1), **found}
    show(results)
    for peer_name, reason in left_out.items():
        print(f"left out: {peer_name}: {reason.strip().splitlines()[-1]}")
    print(json.dumps({"results": results, "left_out": left_out, "python": sys.version.split()[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
