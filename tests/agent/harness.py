"""A real broker, a real agent process and a hand-written tracker, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as paho
import pytest

from support.needs import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def need_mosquitto() -> str:
    """The path of mosquitto; without it the test is skipped at home and fails in CI."""
    if MOSQUITTO is None:
        missing("mosquitto is not installed (apt-get install mosquitto)")
    return MOSQUITTO


def until(condition: Callable[[], Any], seconds: float = 10.0, what: str = "it") -> Any:
    """Wait until ``condition()`` is true, and return it; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {seconds} s")
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Mosquitto:
    """One mosquitto process; ``extra`` is added to its configuration."""

    def __init__(self, directory: Path, extra: str = "allow_anonymous true\n") -> None:
        self.port = free_port()
        self._directory = directory
        self._config = directory / "mosquitto.conf"
        # max_queued_messages: a test may publish a thousand requests at once
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nset_tcp_nodelay true\nmax_queued_messages 0\n{extra}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        self._process = subprocess.Popen(
            [need_mosquitto(), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, what="mosquitto's start")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


@contextlib.contextmanager
def mosquitto(directory: Path, extra: str = "allow_anonymous true\n") -> Iterator[Mosquitto]:
    broker = Mosquitto(directory, extra).start()
    try:
        yield broker
    finally:
        broker.stop()


class Tracker:
    """Sends requests in Fleets' form and gathers responses, knowing nothing of thingctl's code."""

    def __init__(self, port: int, root: str = "$emqx/commands", **login: Any) -> None:
        self.root = root
        self.responses: dict[str, list[dict[str, Any]]] = {}
        self.announcements: list[bytes] = []
        self.presences: list[tuple[str, Any]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"tracker-{uuid.uuid4()}")
        if login:
            self.client.username_pw_set(**login)
        self.client.max_inflight_messages = 1000
        self.client.on_message = self._on_message
        subscribed = threading.Event()
        self.client.on_connect = lambda client, *_: client.subscribe([(f"{root}/#", 1)])
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self,
        thing: str,
        action: str,
        params: Any = None,
        *,
        ttl: float = 60,
        age: float = 0,
        execution_id: str | None = None,
        retain: bool = False,
    ) -> str:
        execution_id = execution_id or str(uuid.uuid4())
        payload = {
            "commandId": f"c-{execution_id}",
            "action": action,
            "params": params or {},
            "timestamp": int(time.time() - age),
            "ttl": ttl,
        }
        topic = f"{self.root}/things/{thing}/executions/{execution_id}/request"
        self.client.publish(topic, json.dumps(payload), qos=1, retain=retain)
        return execution_id

    def cancel(self, thing: str, execution_id: str) -> None:
        self.client.publish(f"{self.root}/things/{thing}/executions/{execution_id}/cancel", "{}", qos=1)

    def time(self, thing: str, timestamp: float) -> None:
        self.client.publish(f"{self.root}/things/{thing}/time", json.dumps({"timestamp": timestamp}))

    def of(self, execution_id: str) -> list[dict[str, Any]]:
        return list(self.responses.get(execution_id, []))

    def final(self, execution_id: str, seconds: float = 10) -> dict[str, Any]:
        """The first terminal response."""

        def found() -> dict[str, Any] | None:
            return next((r for r in self.of(execution_id) if r["status"] != "IN_PROGRESS"), None)

        return until(found, seconds, f"an answer to {execution_id}")

    def do(self, thing: str, action: str, params: Any = None, **options: Any) -> dict[str, Any]:
        return self.final(self.request(thing, action, params, **options))

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if message.topic.endswith("/response"):
            execution_id = message.topic.split("/")[-2]
            self.responses.setdefault(execution_id, []).append(json.loads(message.payload))
        elif message.topic.endswith("/actions"):
            self.announcements.append(message.payload)
        elif message.topic.endswith("/presence"):
            self.presences.append((message.topic.split("/")[-2], json.loads(message.payload)))


class AgentProcess:
    """``thingctl-agent run`` as a user runs it."""

    def __init__(
        self,
        source: str | Path,
        url: str,
        state: Path,
        *options: str,
        thing: str = "thing-1",
        env: dict[str, str] | None = None,
        argv: list[str] | None = None,
    ) -> None:
        state.mkdir(exist_ok=True)
        if isinstance(source, str):
            text, source = source, state / "my_actions.py"
            source.write_text(text)
        self.log_path = state / "agent.log"
        self.argv = argv or [
            sys.executable,
            *("-m", "thingctl_agent.setup.cli", "run", str(source)),
            *("--thing", thing, "--url", url, "--state-dir", str(state)),
            *("--wall-clock", "trust", *options),
        ]
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> AgentProcess:
        before = self.log.count("ready for commands")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdout=log, stderr=subprocess.STDOUT, env=self._env, cwd=self.log_path.parent
            )
        if ready:
            try:
                until(
                    lambda: self.log.count("ready for commands") > before or self._ended(),
                    20,
                    "the agent's start",
                )
            except BaseException:
                self.kill()
                raise
            assert not self._ended(), self.log
        return self

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """End it; returns its exit code and the seconds it took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(10)
        return code, time.monotonic() - begun

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
