"""The files to run a cluster with: what they name is there, and their own programs take them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from support.haproxy import program as haproxy
from support.hocon import filled_in, read_hocon
from support.needs import missing
from thingctl_broker.app.config import read_settings
from thingctl_broker.app.run import WORKER_STOP_TIMEOUT
from thingctl_broker.http.api.mqtt_authentication import AUTHENTICATION, AuthenticationBody
from thingctl_broker.mqtt.cluster.settings import LinkSettings

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
CLUSTER = CONFIGS / "cluster"
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
WORKERS = [name for name in SERVICES if name.startswith("worker-")]
AUTHENTICATORS = read_hocon((CONFIGS / "emqx" / "authentication.hocon").read_text())[0]["authentication"]
BASE, INCLUDES = read_hocon((CLUSTER / "base.hocon").read_text())
CLIENT = {"username": "lamp", "password": "secret", "clientid": "lamp-1", "peerhost": "192.0.2.7"}


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> Path:
    """What make-secrets.sh makes."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed")
    folder = tmp_path_factory.mktemp("cluster") / "secrets"
    path = f"{BIN}:{os.environ['PATH']}"
    for _ in range(2):  # what is there stays as it is
        made = run(CLUSTER / "make-secrets.sh", "fleet.example", folder, PATH=path)
        assert made.returncode == 0, made.stderr
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
    return folder


# EMQX.


def test_emqx_asks_the_workers_what_they_answer():
    of_workers, of_things = AUTHENTICATORS
    assert (of_things["mechanism"], of_things["backend"], of_things["method"]) == (
        "password_based",
        "http",
        "post",
    )
    assert urlsplit(of_things["url"]).path == AUTHENTICATION
    assert urlsplit(of_things["url"]).scheme == "https"
    assert of_things["headers"] == {"content-type": "application/json", "authorization": "Bearer TOKEN"}
    body = msgspec.json.encode(filled_in(of_things["body"], CLIENT))
    assert msgspec.json.decode(body, type=AuthenticationBody) == AuthenticationBody(**CLIENT)
    assert of_workers["backend"] == "built_in_database", "the workers' own sign-in needs no worker"


def test_emqx_is_given_all_that_its_settings_name():
    given = {volume.split(":")[1] for volume in SERVICES["emqx"]["volumes"]}
    given |= {secret["target"] for secret in SERVICES["emqx"]["secrets"]}
    named = {*INCLUDES, AUTHENTICATORS[0]["bootstrap_file"], AUTHENTICATORS[1]["ssl"]["cacertfile"]}
    named |= {source["path"] for source in BASE["authorization"]["sources"]}
    listeners = BASE["listeners"]["ssl"].values()
    named |= {listener["ssl_options"][file] for listener in listeners for file in ("certfile", "keyfile")}
    assert named <= given


def test_what_the_page_says_of_emqx_is_what_the_file_has():
    page = (ROOT / "docs" / "cluster.md").read_text()
    for block in re.findall(r"```\n((?:zones|authorization).*?)```", page, re.DOTALL):
        shown, _ = read_hocon(block)
        for zone, settings in shown.get("zones", {}).items():
            ours = dict(BASE["zones"][zone]["mqtt"])
            for name, value in settings["mqtt"].items():
                assert ours.get(name, value) == value, (zone, name)
        for name, value in shown.get("authorization", {}).items():
            assert BASE["authorization"][name] == value
    assert BASE["zones"]["workers"]["mqtt"]["max_inflight"] == LinkSettings().receive_maximum
    listeners = BASE["listeners"]
    assert {kind: listeners[kind]["default"]["enable"] for kind in ("tcp", "ws", "wss")} == dict.fromkeys(
        ("tcp", "ws", "wss"), False
    )
    assert "use_username_as_clientid" not in BASE["zones"]["workers"]["mqtt"], "they share one user name"


# Compose.


def test_every_secret_and_volume_is_named_and_every_file_is_there(secrets):
    for name, service in SERVICES.items():
        for secret in service.get("secrets", ()):
            assert (secret if isinstance(secret, str) else secret["source"]) in COMPOSE["secrets"], name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (CLUSTER / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
        assert service.keys() & {"healthcheck", "user"}, name
    for secret in COMPOSE["secrets"].values():
        assert (secrets / Path(secret["file"]).name).stat().st_size > 0
        assert (secrets / Path(secret["file"]).name).stat().st_mode & 0o077 == 0
    assert Path(ROOT / "configs/cluster/Dockerfile").is_file()


def test_images_have_a_version_and_secrets_stand_in_files_only():
    for name, service in SERVICES.items():
        if name not in WORKERS:
            assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), name
    text = (CLUSTER / "compose.yaml").read_text()
    assert not re.search(r"(?i)password:\s*\S", re.sub(r"POSTGRES_PASSWORD_FILE.*|.*\{file: .*", "", text))


def test_only_what_speaks_tls_is_published():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"balancer": ["8443:8443"], "emqx": ["8883:8883"]}
    assert BASE["listeners"]["ssl"]["default"]["bind"].endswith(":8883")


def test_the_workers_settings_fit_what_is_around_them(secrets):
    settings = read_settings(CLUSTER / "worker.toml")
    link, store = settings.link, settings.store
    assert link is not None
    assert store is not None
    (emqx,) = link.endpoints
    assert emqx.tls
    assert emqx.host in SERVICES["emqx"]["networks"]["cluster"]["aliases"]
    assert BASE["listeners"]["ssl"]["workers"]["bind"].endswith(f":{emqx.port}")
    database = urlsplit(store.url)
    assert database.hostname in SERVICES["postgres"]["networks"]["cluster"]["aliases"]
    environment = SERVICES["postgres"]["environment"]
    assert (database.username, database.path) == (
        environment["POSTGRES_USER"],
        f"/{environment['POSTGRES_DB']}",
    )
    passwords = (secrets / "pgpass").read_text().strip()
    assert passwords == (
        f"{database.hostname}:{database.port}:{database.path[1:]}:{database.username}:"
        + (secrets / "postgres-password").read_text().strip()
    )
    user, password, _ = (secrets / "users.csv").read_text().splitlines()[1].split(",")
    assert (user, password) == (link.username, (secrets / "link-password").read_text().strip())
    for worker in WORKERS:
        service = SERVICES[worker]
        given = {f"/run/secrets/{name}" for name in service["secrets"]}
        assert {
            link.password_file,
            link.tls_ca,
            settings.mqtt.tls_ca,
            service["environment"]["PGPASSFILE"],
        } <= given
        assert service["command"] == ["serve", "--config", "/etc/thingctl/worker.toml", "--worker", worker]
        assert f"{worker}:/var/lib/thingctl" in service["volumes"]
        port = settings.http.bind.rpartition(":")[2]
        assert f":{port}/readyz" in service["healthcheck"]["test"][-1]
        assert int(service["stop_grace_period"].rstrip("s")) > WORKER_STOP_TIMEOUT
        assert f"{worker}:{port}" in SERVICES["balancer"]["environment"].values()


def test_emqx_asks_by_way_of_the_balancer(secrets):
    (_, of_things) = read_hocon((secrets / "authentication.hocon").read_text())[0]["authentication"]
    url = urlsplit(of_things["url"])
    assert (url.hostname, url.path) == ("balancer", AUTHENTICATION)
    assert "ssl" not in of_things
    config = (CLUSTER / "haproxy.cfg").read_text()
    assert f"bind :{url.port}\n  http-request deny unless {{ path {AUTHENTICATION} }}" in config


def test_the_image_is_made_as_the_page_says():
    text = (CLUSTER / "Dockerfile").read_text()
    assert "thingctl[" not in text
    extras = set(re.search(r"\$\{wheel\}\[(.*?)\]", text)[1].split(","))
    assert extras == {"broker", "cluster", "fast"}
    assert re.search(r"^FROM python:3\.\d+\.\d+-", text, re.MULTILINE)
    assert '"/etc/thingctl/worker.toml"' in text
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert source == "dist/thingctl-*.whl" or (ROOT / source).is_file()


# The load balancer.


def test_haproxy_takes_its_settings(secrets):
    checked = run(
        haproxy(), "-c", "-f", CLUSTER / "haproxy.cfg",
        THINGCTL_PEM=str(secrets / "server.pem"), THINGCTL_WORKER_1="127.0.0.1:8081", THINGCTL_WORKER_2="127.0.0.1:8082",
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr, checked.stderr


# systemd.

UNIT = CLUSTER / "thingctl-worker@.service"


def test_systemd_takes_the_unit_and_its_exposure_is_two_at_most(tmp_path):
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed (apt-get install systemd)")
    file = tmp_path / "thingctl-worker@one.service"
    file.write_text(UNIT.read_text().replace("/opt/thingctl/bin/thingctl", "/bin/true"))
    exposed = run("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", file)
    assert exposed.returncode == 0, exposed.stdout[-600:]
    verified = run("systemd-analyze", "verify", file)
    assert verified.returncode == 0, verified.stderr
    assert "Unknown" not in verified.stderr, verified.stderr


def test_the_unit_starts_a_worker_of_its_own_name(tmp_path):
    text = UNIT.read_text()
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].split()
    assert command[0].endswith("/bin/thingctl")
    # The same command, with a file in which nothing can be reached: it gets as far as it can.
    config = tmp_path / "worker.toml"
    config.write_text(
        '[link]\nurls = ["mqtt://127.0.0.1:1"]\n'
        '[store]\nurl = "postgresql://thingctl@127.0.0.1:1/thingctl"\nconnect_timeout = 2.0\n'
    )
    words = {"/etc/thingctl/worker.toml": str(config), "%i": "one", "${THINGCTL_HTTP}": "127.0.0.1:0"}
    ran = run(
        BIN / "thingctl", *(words.get(word, word) for word in command[1:]), THINGCTL_DATA_DIR=str(tmp_path)
    )
    assert ran.returncode == 2
    assert "store postgresql://127.0.0.1:1/thingctl" in ran.stderr
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert stop > WORKER_STOP_TIMEOUT
    assert "StateDirectory=thingctl/%i\n" in text
    assert "THINGCTL_DATA_DIR=/var/lib/thingctl/%i\n" in text


def test_every_file_of_the_folder_is_tested_here():
    tested = {"compose.yaml", "base.hocon", "worker.toml", "haproxy.cfg", "Dockerfile", "make-secrets.sh"}
    assert {path.name for path in CLUSTER.iterdir() if path.is_file()} == tested | {UNIT.name}
    emqx = {"acl.conf", "rules.json", "authentication.hocon"}
    assert {path.name for path in (CONFIGS / "emqx").iterdir()} == emqx
