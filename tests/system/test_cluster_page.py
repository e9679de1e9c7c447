"""The trial of docs/cluster.md works as it is typed, on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from agent.harness import free_port, mosquitto, need_mosquitto
from support import postgres as servers
from support.haproxy import program as haproxy
from support.hocon import filled_in, read_hocon
from support.needs import missing
from support.operators import Operator
from support.processes import BIN, ROOT, TOKEN, output, process, serving
from support.waits import soon
from support.workers import Cluster, working

pytestmark = pytest.mark.system

PAGE = (ROOT / "docs" / "cluster.md").read_text()
(TRIAL,) = re.findall(r"```sh\n(mkdir trial .*?)```", PAGE, re.DOTALL)


@contextmanager
def a_folder() -> Iterator[Path]:
    """One that everybody may read, PostgreSQL's user too; and programs that are that user if we are root."""
    folder = Path(tempfile.mkdtemp(prefix="thingctl-trial-"))
    folder.chmod(0o755)
    prefix, user = servers._as_somebody()
    programs = folder / "programs"
    programs.mkdir()
    for name in ("initdb", "pg_ctl"):
        wrapper = programs / name
        owned = "" if user is None else f"chown {user} .\n"
        wrapper.write_text(f'#!/bin/sh\n{owned}exec {" ".join(prefix)} {servers.binaries() / name} "$@"\n')
        wrapper.chmod(0o755)
    try:
        yield folder
    finally:
        pid = folder / "trial" / "db" / "postmaster.pid"
        with contextlib.suppress(OSError, ProcessLookupError):
            os.kill(int(pid.read_text().splitlines()[0]), signal.SIGINT)
        shutil.rmtree(folder, ignore_errors=True)


def typed(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type it into a shell; whatever it has left running ends."""
    with subprocess.Popen(
        ["bash", "-e", "-o", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ | {"PATH": f"{folder / 'programs'}:{BIN}:{os.environ['PATH']}", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            out, err = shell.communicate(timeout=240)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(text, shell.returncode, out, err)


def test_the_trial_of_the_page_works_as_typed():
    need_mosquitto()
    servers.binaries()
    if shutil.which("curl") is None:
        missing("curl is not installed")
    text = TRIAL
    for port in ("1884", "5433", "8081", "8082"):
        assert port in text
        text = text.replace(port, str(free_port()))
    with a_folder() as folder:
        done = typed(text, folder)
        trial = folder / "trial"
        logs = "\n".join(log.read_text() for log in trial.glob("*.log"))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
        assert done.stdout.count("SUCCEEDED") >= 3, done.stdout
        assert "its session is taken over" in logs
        assert "Traceback" not in logs, logs
        assert not (trial / "db" / "postmaster.pid").exists(), "everything has ended"


@contextmanager
def balancer(folder: Path, workers: list[tuple[str, int]]) -> Iterator[Operator]:
    """HAProxy with our settings, but for its ports, in front of the workers; an operator who comes that way."""
    program = haproxy()
    made = subprocess.run(
        [BIN / "thingctl", "tls", "init", "--dir", folder, "--name", "localhost"],
        check=False,
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    pem = folder / "server.pem"
    pem.write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    port = free_port()
    config = folder / "haproxy.cfg"
    text = (ROOT / "configs" / "cluster" / "haproxy.cfg").read_text()
    text = text.replace("bind :8443", f"bind 127.0.0.1:{port}").replace(
        "bind :8080", f"bind 127.0.0.1:{free_port()}"
    )
    config.write_text(text)
    environment = {f"THINGCTL_WORKER_{n}": f"{host}:{at}" for n, (host, at) in enumerate(workers, 1)}
    with process(program, "-db", "-f", config, THINGCTL_PEM=str(pem), **environment) as running:
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        operator = Operator(("localhost", port), tls)

        def answers() -> bool:
            assert running.poll() is None, output(running)
            with contextlib.suppress(OSError):
                return operator.call("GET", "/readyz").status == 200
            operator.close()
            return False

        soon(answers, 30)
        yield operator
        operator.close()


def test_the_balancer_asks_who_is_ready_and_else_who_is_alive(postgres, tmp_path):
    with mosquitto(tmp_path) as broker, postgres.database() as url:
        cluster = Cluster(broker, postgres, url)
        with working(cluster, tmp_path, "w1", "--open") as worker:
            nobody = ("127.0.0.1", free_port())
            with balancer(tmp_path, [worker.http_address, nobody]) as operator:
                operator.send("lamp", "go")
                broker.stop()  # the cluster is away: no worker is ready
                soon(lambda: operator.call("GET", "/readyz").body.get("title"), 30)
                soon(lambda: queued(operator), 30)


def queued(operator: Operator) -> bool:
    """Whether a command is taken, to wait, while no worker is ready."""
    answer = operator.call("POST", "/api/v1/commands", {"thingId": "lamp", "action": "go", "ttl": 60})
    return answer.status == 201 and answer.body["delivery"] == "QUEUED"


def test_what_is_asked_of_a_worker_is_answered_as_emqx_expects(tmp_path):
    """EMQX's request, filled in from our file, against a broker with the same endpoint."""
    (_, asking) = read_hocon((ROOT / "configs/emqx/authentication.hocon").read_text())[0]["authentication"]
    with serving(tmp_path, enrolment="--closed") as broker:
        connection = HTTPConnection(*broker.http_address, timeout=20)

        def call(path: str, body: object, headers: dict[str, str]) -> tuple[int, dict]:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            assert answer.getheader("Content-Type") == "application/json"
            return answer.status, json.loads(answer.read())

        admin = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        _, thing = call("/api/v1/things", {"name": "lamp"}, admin)
        _, token = call("/api/v1/tokens", {"name": "emqx", "scopes": ["mqtt:authenticate"]}, admin)
        headers = {name: value.replace("TOKEN", token["token"]) for name, value in asking["headers"].items()}
        path = "/" + asking["url"].split("/", 3)[3]
        for user, password, result in (
            ("lamp", thing["credentials"]["password"], "allow"),
            ("lamp", "another", "deny"),
            ("thingctl-worker", "whatever", "ignore"),
        ):
            client = {"username": user, "password": password, "clientid": user, "peerhost": "192.0.2.7"}
            answered = call(path, filled_in(asking["body"], client), headers)
            assert answered == (200, {"result": result, "is_superuser": False})
        connection.close()
