"""The files to run one broker in a container: what they name is there, and the steps in them work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.processes import BIN, process, until_said
from support.waits import soon
from thingctl_broker.app.config import read_settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "container"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
BROKER = COMPOSE["services"]["broker"]
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
DATA = "/var/lib/thingctl"


def test_what_is_published_is_what_listens_by_tls():
    settings = read_settings(FOLDER / "broker.toml")
    ports = [bind.rpartition(":")[2] for bind in (settings.mqtt.bind, settings.http.bind)]
    assert BROKER["ports"] == [f"{port}:{port}" for port in ports]
    assert f"EXPOSE {' '.join(ports)}\n" in DOCKERFILE
    assert settings.mqtt.tls_cert
    assert settings.http.tls_cert
    assert not settings.open
    assert settings.data_dir == DATA


def test_every_file_that_is_named_is_there():
    assert (FOLDER / BROKER["build"]["context"] / BROKER["build"]["dockerfile"]).samefile(
        FOLDER / "Dockerfile"
    )
    for volume in BROKER["volumes"]:
        source, target = volume.split(":")[:2]
        assert (FOLDER / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
        assert target in DOCKERFILE
    for source in re.findall(r"^COPY (\S+)", DOCKERFILE, re.MULTILINE):
        assert source.startswith("dist/") or (ROOT / source).is_file()


def test_it_is_the_cluster_s_image_but_for_what_it_runs():
    """Base image, user and the way of installing are decided once."""
    worker = (ROOT / "configs/cluster/Dockerfile").read_text()
    for pattern in (r"^FROM .*", r"^COPY .*", r"useradd .*", r"^USER .*"):
        assert re.findall(pattern, DOCKERFILE, re.MULTILINE) == re.findall(pattern, worker, re.MULTILINE)


@pytest.mark.system
def test_the_steps_in_the_file_lead_to_a_healthy_broker(tmp_path):
    """The commands of compose.yaml's head, without an engine: on other ports, and below a folder."""
    steps = re.findall(
        r"^#   docker compose (?:run --rm|exec) broker (.*?)(?:  .*)?$",
        (FOLDER / "compose.yaml").read_text(),
        re.MULTILINE,
    )
    init, console = (
        shlex.split(step.replace("HOST", "broker.example").removeprefix("thingctl ")) for step in steps
    )
    environ = {"THINGCTL_DATA_DIR": str(tmp_path)}
    subprocess.run([BIN / "thingctl", *init], env=environ, check=True)
    config = tmp_path / "broker.toml"
    config.write_text(
        re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", (FOLDER / "broker.toml").read_text()).replace(
            DATA, str(tmp_path)
        )
    )
    with process(BIN / "thingctl", "serve", "--config", config, **environ) as broker:
        port = re.search(r"^http .*:(\d+)$", until_said(broker, "\ntoken "), re.MULTILINE)[1]
        _, *check = BROKER["healthcheck"]["test"]
        check = [word.replace(":8443", f":{port}").replace(DATA, str(tmp_path)) for word in check]
        check[0] = sys.executable
        soon(lambda: subprocess.run(check, env={}, capture_output=True, check=False).returncode == 0)
        environ["THINGCTL_URL"] = f"https://localhost:{port}"
        assert "#sign-in=" in subprocess.check_output([BIN / "thingctl", *console], env=environ, text=True)
