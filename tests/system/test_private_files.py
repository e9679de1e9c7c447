"""Whatever broker, agent and command line write is its owner's alone, and no secret is where it does not belong.

All files are found by walking, and all secrets are searched in all of them: a new file or log line is
covered when it comes to be.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from support.operators import Operator
from support.paho import Listening
from support.processes import BIN, free_address, output, process, until_said
from support.waits import soon

pytestmark = pytest.mark.system

API = "/api/v1"
HOOK_QUERY = "query-of-a-post-back-uri"
ENDPOINT_QUERY = "query-of-an-endpoint"
ENDPOINT_SECRET = "secret-of-an-endpoint-0123456789"
PARAMS = "params-of-a-command"
WRONG_PASSWORD = "a-wrong-password-of-a-device"
WRONG_TOKEN = "tctl_a-wrong-token-0123456789-0123456789-012345"

ACTIONS = """
import subprocess, sys
from thingctl_agent import Agent, Context

agent = Agent()

@agent.action
def turnOn(ctx: Context, secret: str) -> str:
    ctx.save({"step": 1})
    ctx.run([sys.executable, "-c", "import time; time.sleep(1.5)"])
    return "on"

@agent.action
def fail(secret: str) -> None:
    raise ValueError("it does not work")
"""

ALLOWED = {
    "admin token": {"broker/admin-token", "backup.tar"},
    "password": {"lamp.bundle"},
    "old password": {"old.bundle"},
    "webhook secret": {"broker/webhook-secret", "backup.tar"},
    "params": {
        *("broker/executions.db", "broker/executions.db-wal", "broker/executions.db-shm", "backup.tar"),
        *("broker/rollouts/ROLLOUT.json", "agent/journal"),
    },
    "query": {
        "broker/executions.db",
        "broker/executions.db-wal",
        "backup.tar",
        "broker/rollouts/ROLLOUT.json",
    },
    "token": set(),
    "backend token": set(),
    "renewed token": set(),
    "sign-in code": set(),
    "session": set(),
    "endpoint query": set(),
    "endpoint secret": set(),
    "wrong password": set(),
    "wrong token": set(),
}
"""Where each secret may stand, below the home of the test. Nothing else may hold it, and no log."""


class Household:
    """A machine's home directory: a broker, an agent, what people wrote there, and all logs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.logs: dict[str, str] = {}
        self.secrets: dict[str, str] = {
            "query": HOOK_QUERY,
            "endpoint query": ENDPOINT_QUERY,
            "endpoint secret": ENDPOINT_SECRET,
            "params": PARAMS,
            "wrong password": WRONG_PASSWORD,
            "wrong token": WRONG_TOKEN,
        }
        self.command_lines: set[str] = set()

    def cli(self, *arguments: object, **environment: str) -> str:
        ran = subprocess.run(
            [BIN / "thingctl", *map(str, arguments)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: os.umask(0),
        )
        assert ran.returncode == 0, ran.stderr
        self.logs[f"standard error of thingctl {arguments[0]} {arguments[1]}"] = ran.stderr
        return ran.stdout

    def note_command_lines(self, *roots: int) -> None:
        """Look at the arguments of processes and of all that they have started."""
        wanted = {*roots}
        for found in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            with suppress(OSError):
                parent = int((found / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in wanted or int(found.name) in wanted:
                    wanted.add(int(found.name))
                    self.command_lines.add((found / "cmdline").read_bytes().decode(errors="replace"))

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file and directory, by its name below the home; roll-outs have one name."""
        for path in sorted(self.home.rglob("*")):
            name = str(path.relative_to(self.home))
            yield ("broker/rollouts/ROLLOUT.json" if "/rollouts/" in name else name), path


def broker_config(home: Path, hooks: str) -> Path:
    path = home.parent / "broker.toml"
    path.write_text(
        "[webhooks]\nallow_private = true\n"
        f'endpoints = [{{ url = "http://{hooks}/all?key={ENDPOINT_QUERY}", secret = "{ENDPOINT_SECRET}" }}]\n'
    )
    return path


def start_broker(stack: ExitStack, home: Path, config: Path) -> tuple[Any, str, str]:
    """Begin to serve with a umask that forbids nothing; return the process and its addresses."""
    mqtt, http = free_address(), free_address()
    command = ("serve", "--closed", "--debug", "--config", config, "--mqtt", mqtt, "--http", http)
    words = (BIN / "thingctl", *command, "--data-dir", home / "broker")
    broker = stack.enter_context(process("sh", "-c", 'umask 0; exec "$@"', "sh", *words))
    until_said(broker, "\ndata ")
    return broker, mqtt, http


def use_api(house: Household, http: str, hooks: str) -> None:
    """Have the broker make, keep and refuse secrets of every kind."""
    host, _, port = http.rpartition(":")
    secrets = house.secrets
    with closing(Operator((host, int(port)), token=secrets["admin token"])) as operator:
        made = operator.call("POST", f"{API}/tokens", {"name": "shop", "scopes": ["commands:send"]})
        secrets["token"] = made.body["token"]
        secrets["renewed token"] = operator.call("POST", f"{API}/tokens/shop/renew").body["token"]
        made = operator.call("POST", f"{API}/tokens", {"name": "backend", "scopes": ["mqtt:read"]})
        secrets["backend token"] = made.body["token"]
        secrets["sign-in code"] = operator.call("POST", f"{API}/sign-in-codes").body["code"]
        signed_in = operator.call("POST", f"{API}/sign-in", {"code": secrets["sign-in code"]})
        secrets["session"] = signed_in.body["token"]
        with closing(operator.another(WRONG_TOKEN)) as stranger:
            assert stranger.call("GET", f"{API}/me").status == 401
        command = {"action": "turnOn", "params": {"secret": PARAMS}, "ttl": 60}
        hook = {"postBackUri": f"http://{hooks}/one?key={HOOK_QUERY}"}
        for body in (
            {"thingId": "lamp", **command, **hook},
            {"thingId": "lamp", **command, "action": "fail", **hook},
            {"thingId": "away", **command, **hook},
            {"targets": {"things": ["lamp", "away"]}, **command, "rollout": {"batch": 1}, **hook},
        ):
            assert operator.call("POST", f"{API}/commands", body).status in {201, 202}
        bad = {"thingId": "lamp", **command, "postBackUri": f"ftp://{hooks}/?key={HOOK_QUERY}"}
        assert operator.call("POST", f"{API}/commands", bad).status == 400


def ended(http: str, token: str) -> bool:
    host, _, port = http.rpartition(":")
    with closing(Operator((host, int(port)), token=token)) as operator:
        answer = operator.call("GET", f"{API}/commands?thingId=lamp")
        statuses = [found["status"] for found in answer.body["executions"]]
    return len(statuses) >= 2 and all(status in {"SUCCEEDED", "FAILED"} for status in statuses)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Household:
    home = tmp_path_factory.mktemp("house") / "home"
    home.mkdir(mode=0o700)
    found, hooks = Household(home), free_address()  # nothing listens there: each post fails, and is logged
    config = broker_config(home, hooks)
    found.cli("tls", "init", "--dir", home / "tls", "--name", "127.0.0.1")
    found.cli("tls", "thing", "lamp", "--dir", home / "tls")
    with ExitStack() as stack:
        broker, mqtt, http = start_broker(stack, home, config)
        token = (home / "broker" / "admin-token").read_text().strip()
        found.secrets["admin token"] = token
        found.secrets["webhook secret"] = (home / "broker" / "webhook-secret").read_text().strip()
        client = {"THINGCTL_URL": f"http://{http}", "THINGCTL_TOKEN": token}
        found.cli("things", "add", "away", "--json", **client)
        for name, file in (("add", "old.bundle"), ("password", "lamp.bundle")):
            found.cli("things", name, "lamp", "--bundle", home / file, **client)
        found.secrets["old password"] = json.loads((home / "old.bundle").read_text())["password"]
        found.secrets["password"] = json.loads((home / "lamp.bundle").read_text())["password"]
        (home.parent / "actions.py").write_text(ACTIONS)
        (home.parent / "agent.toml").write_text(
            f'state_dir = "{home / "agent"}"\nbundle = "{home / "lamp.bundle"}"\n[log]\nlevel = "debug"\n'
        )
        run = (
            BIN / "thingctl-agent",
            "run",
            home.parent / "actions.py",
            "--config",
            home.parent / "agent.toml",
        )
        agent = stack.enter_context(process("sh", "-c", 'umask 0; exec "$@"', "sh", *run))
        until_said(agent, "ready for commands")
        use_api(found, http, hooks)
        host, _, port = mqtt.rpartition(":")
        stranger = Listening("stranger")
        stranger.username_pw_set("lamp", WRONG_PASSWORD)
        stranger.begin((host, int(port)))
        stranger.vanish()

        def is_done() -> bool:
            found.note_command_lines(agent.pid, broker.pid)
            return ended(http, token)

        soon(is_done, 20)
        found.cli("backup", home / "backup.tar", "--data-dir", home / "broker")
        soon(lambda: "a post failed" in output(broker))
        for one, number in ((agent, signal.SIGTERM), (broker, signal.SIGKILL)):
            one.send_signal(number)
            one.wait(10)
        again, _, _ = start_broker(stack, home, config)
        again.send_signal(signal.SIGTERM)
        again.wait(10)
        found.logs |= {"broker": output(broker), "broker again": output(again), "agent": output(agent)}
    return found


def test_each_file_and_directory_is_its_owners_alone(house: Household) -> None:
    modes = {name: stat.S_IMODE(path.lstat().st_mode) for name, path in house.files()}
    right = {name: 0o700 if (house.home / name).is_dir() else 0o600 for name in modes}
    assert modes == right
    made = {"broker/executions.db", "broker/tokens.json", "broker/audit.log", "broker/webhook-secret"}
    made |= {"broker/rollouts/ROLLOUT.json", "agent/journal", "lamp.bundle", "backup.tar", "tls/ca.key"}
    assert made <= set(modes)


@pytest.mark.parametrize("kind", ALLOWED)
def test_a_secret_stands_where_it_belongs_and_nowhere_else(house: Household, kind: str) -> None:
    secret = house.secrets[kind].encode()
    holders = {name for name, path in house.files() if path.is_file() and secret in path.read_bytes()}
    assert holders <= ALLOWED[kind]
    assert {name for name, text in house.logs.items() if secret.decode() in text} <= shown_once(kind)
    assert not any(secret.decode() in line for line in house.command_lines)


def shown_once(kind: str) -> set[str]:
    """The first start shows the admin token on standard output, once."""
    return {"broker"} if kind == "admin token" else set()


def test_every_secret_was_searched_for(house: Household) -> None:
    assert set(house.secrets) == set(ALLOWED)
    assert all(len(secret) > 8 for secret in house.secrets.values())
    assert any("time.sleep(1.5)" in line for line in house.command_lines)
