"""TLS: a private authority, certificates that are identities, bundles, and what is refused without."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
import urllib.request
from contextlib import contextmanager, suppress

import pytest

from support.paho import Listening
from support.processes import BIN, ROOT, TOKEN, output, process, serving, until_said
from support.waits import soon
from thingctl_broker.mqtt.protocol.packets import Connect, encode_connect
from thingctl_protocol.bundle import decode_bundle

pytestmark = pytest.mark.system

COMMANDS = "$emqx/commands/things"


def thingctl(*arguments, **environment):
    ran = subprocess.run(
        [BIN / "thingctl", *map(str, arguments)],
        env=environment or None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


class World:
    """A closed broker on TLS, and a command line that trusts it."""

    def __init__(self, serve, directory):
        self.serve = serve
        self.tls = directory / "tls"
        self.directory = directory
        self.environment = serve.client_environment | {"THINGCTL_CA": str(self.tls / "ca.crt")}

    @property
    def address(self):
        return self.serve.mqtt_address

    def run(self, *arguments):
        ran = thingctl(*arguments, **self.environment)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def thing(self, name):
        return json.loads(self.run("things", "show", name, "--json"))

    @contextmanager
    def client(self, certificate=None, *, username=None, password=None, ca=None):
        client = Listening("some-id")
        context = ssl.create_default_context(cafile=ca or self.tls / "ca.crt")
        if certificate is not None:
            context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
        client.tls_set_context(context)
        if username is not None:
            client.username_pw_set(username, password)
        codes = []
        client.on_connect = lambda _c, _d, flags, reason, _p: (
            codes.append(reason.value),
            client.sessions.put(flags.session_present),
        )
        client.connect(*self.address)
        client.loop_start()
        try:
            client.sessions.get(timeout=15)
            yield client, codes[0]
        finally:
            client.disconnect()
            client.vanish()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    assert thingctl("tls", "init", "--dir", directory / "tls", "--name", "127.0.0.1").returncode == 0
    with serving(
        directory / "data", "--in-memory", "--tls-dir", str(directory / "tls"), enrolment="--closed"
    ) as serve:
        yield World(serve, directory)
        assert "Traceback" not in output(serve.process)


def request_filter(name):
    return f"{COMMANDS}/{name}/executions/+/request"


def test_the_files_are_the_owners_alone_and_never_overwritten(world):
    for path in world.tls.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(world.tls.stat().st_mode) == 0o700
    before = (world.tls / "ca.key").read_bytes()
    assert thingctl("tls", "init", "--dir", world.tls).returncode == 2
    assert (world.tls / "ca.key").read_bytes() == before


def test_a_password_works_over_tls(world):
    added = json.loads(world.run("things", "add", "porch", "--json"))
    with world.client(username="porch", password=added["password"]) as (client, code):
        assert code == 0
        assert client.listen(request_filter("porch")) == [1]
    with world.client(username="porch", password="wrong") as (_, code):
        assert code != 0


def test_a_certificate_is_an_identity(world):
    world.run("things", "add", "lamp")
    world.run("things", "add", "lock")
    assert thingctl("tls", "thing", "lamp", "--dir", world.tls).returncode == 0
    certificate = world.tls / "lamp"
    with world.client(certificate) as (client, code):
        assert code == 0
        assert client.listen(request_filter("lamp"), request_filter("lock")) == [1, 0x80]
        soon(lambda: world.thing("lamp")["online"])
    with world.client(certificate, username="lamp") as (_, code):
        assert code == 0
    with world.client(certificate, username="lock", password="any") as (_, code):
        assert code != 0
    world.run("things", "set", "lamp", "--disabled")
    with world.client(certificate) as (_, code):
        assert code != 0
    world.run("things", "remove", "lamp")
    with world.client(certificate) as (_, code):
        assert code != 0


def let_in(world, certificate):
    """Whether a client with that certificate gets so far as to an answer to its CONNECT."""
    context = ssl.create_default_context(cafile=world.tls / "ca.crt")
    context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
    connect = encode_connect(Connect("x", True, 60, None, None, None))
    try:
        with (
            socket.create_connection(world.address, timeout=10) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as wrapped,
        ):
            wrapped.sendall(connect)
            return wrapped.recv(4)[3:] == b"\0"
    except OSError:  # with TLS 1.3 the client hears of it at its first read
        return False


def test_a_certificate_of_another_authority_is_none(world, tmp_path):
    world.run("things", "add", "gate")
    assert thingctl("tls", "init", "--dir", tmp_path).returncode == 0
    for where in (world.tls, tmp_path):
        assert thingctl("tls", "thing", "gate", "--dir", where).returncode == 0
    assert let_in(world, world.tls / "gate")
    assert not let_in(world, tmp_path / "gate")


def test_the_brokers_own_certificate_is_no_things(world):
    """It is signed by the same authority, for serving only."""
    world.run("things", "add", "127.0.0.1")
    assert not let_in(world, world.tls / "server")


def test_plain_text_gets_nowhere(world):
    with socket.create_connection(world.address, timeout=10) as sock:
        sock.sendall(encode_connect(Connect("x", True, 60, None, None, None)))
        with suppress(ConnectionError):
            assert b"\x20\x02" not in sock.recv(100)


def test_the_api_is_https_and_says_no_secret_in_the_clear(world):
    assert world.serve.http.startswith("https://")
    context = ssl.create_default_context(cafile=world.tls / "ca.crt")
    asked = urllib.request.Request(
        f"{world.serve.http}/api/v1/me", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(asked, context=context, timeout=10) as answer:
        assert json.load(answer)["name"] == "admin"
        assert answer.headers["Strict-Transport-Security"]
    untrusting = dict(world.serve.client_environment) | {"HOME": str(world.directory)}
    assert thingctl("things", **untrusting).returncode == 3


def test_a_bundle_is_all_that_a_device_needs(world, tmp_path):
    file = tmp_path / "kiosk.bundle"
    said = world.run("things", "add", "kiosk", "--bundle", file)
    assert f"thingctl-agent install --bundle {file}" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    bundle = decode_bundle(file.read_bytes())
    assert bundle.password not in said
    assert (bundle.thing, bundle.username, bundle.url) == ("kiosk", "kiosk", world.serve.mqtt)
    (tmp_path / "ca.pem").write_text(bundle.ca)
    with world.client(username=bundle.username, password=bundle.password, ca=tmp_path / "ca.pem") as (
        _,
        code,
    ):
        assert code == 0
    ran = thingctl("things", "password", "kiosk", "--bundle", file, **world.environment)
    assert ran.returncode == 2  # it is there already


def test_a_bundle_may_hold_a_certificate_instead(world, tmp_path):
    file = tmp_path / "cam.bundle"
    world.run("things", "add", "cam", "--bundle", file, "--certificate", world.tls)
    bundle = decode_bundle(file.read_bytes())
    assert (bundle.username, bundle.password) == ("", "")
    assert world.thing("cam")["hasPassword"] is False
    for suffix, content in (("crt", bundle.cert), ("key", bundle.key)):
        (tmp_path / f"cam.{suffix}").write_text(content)
    (tmp_path / "ca.pem").write_text(bundle.ca)
    with world.client(tmp_path / "cam", ca=tmp_path / "ca.pem") as (client, code):
        assert code == 0
        assert client.listen(request_filter("cam")) == [1]


def test_an_agent_is_served_over_tls(world, tmp_path):
    file = tmp_path / "heater.bundle"
    world.run("things", "add", "heater", "--bundle", file)
    bundle = decode_bundle(file.read_bytes())
    (tmp_path / "ca.pem").write_text(bundle.ca)
    config = tmp_path / "agent.toml"
    config.write_text(
        f'thing = "{bundle.thing}"\nurl = "{bundle.url}"\nusername = "{bundle.username}"\n'
        f'password = "{bundle.password}"\n[tls]\nca = "{tmp_path}/ca.pem"\n'
    )
    with process(
        BIN / "thingctl-agent", "run", ROOT / "examples" / "thermostat.py",
        "--config", config, "--state-dir", tmp_path / "state",
    ) as agent:  # fmt: skip
        soon(lambda: world.thing("heater")["online"] or agent.poll() is not None, 20)
        said = world.run("send", "heater", "setTemperature", "value=21", "--wait")
    assert "SUCCEEDED" in said


@pytest.mark.parametrize("option", ["--mqtt", "--http"])
def test_it_refuses_to_be_exposed_without_tls(tmp_path, option):
    command = (BIN / "thingctl", "serve", "--data-dir", tmp_path)
    ports = {"--mqtt": "127.0.0.1:0", "--http": "127.0.0.1:0"} | {option: "0.0.0.0:0"}
    options = [part for pair in ports.items() for part in pair]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 2
    assert "--insecure-bind" in ran.stderr
    with process(*command, *options, "--insecure-bind") as started:
        until_said(started, "\ndata ")
        started.terminate()
        assert started.wait(10) == 0


def test_open_enrolment_is_for_loopback_only_whatever_else_is_allowed(tmp_path):
    ran = subprocess.run(
        [
            BIN / "thingctl",
            "serve",
            "--open",
            "--insecure-bind",
            "--mqtt",
            "0.0.0.0:0",
            "--data-dir",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 2
    assert "loopback only" in ran.stderr


def test_open_enrolment_is_loud_in_the_log(tmp_path):
    with serving(tmp_path, "--in-memory") as serve:
        assert "OPEN ENROLMENT" in output(serve.process)


@contextmanager
def everywhere(directory, *options, names=()):
    """A broker on TLS that listens on every address of the machine."""
    named = [option for name in ("localhost", "127.0.0.1", *names) for option in ("--name", name)]
    assert thingctl("tls", "init", "--dir", directory / "tls", *named).returncode == 0
    ports = ("--mqtt", "0.0.0.0:0", "--tls-dir", directory / "tls")
    with serving(
        directory / "data", "--in-memory", *map(str, ports), *options, enrolment="--closed"
    ) as serve:
        yield World(serve, directory), output(serve.process)


def test_a_bundle_that_would_lead_nowhere_is_refused_before_anything_changes(tmp_path):
    with everywhere(tmp_path) as (world, said):
        assert "\nbundle none: the broker listens on 0.0.0.0" in said
        file = tmp_path / "kiosk.bundle"
        ran = thingctl("things", "add", "kiosk", "--bundle", file, **world.environment)
        assert (ran.returncode, "--public-url mqtts://HOST:PORT" in ran.stderr) == (1, True)
        assert not file.exists()
        assert thingctl("things", "show", "kiosk", **world.environment).returncode == 1
        world.run("things", "add", "kiosk")


def test_a_bundle_carries_a_name_of_the_certificate(tmp_path):
    with everywhere(tmp_path, names=("broker.example",)) as (world, said):
        url = f"mqtts://broker.example:{world.address[1]}"
        assert f"\nbundle {url}\n" in said
        file = tmp_path / "kiosk.bundle"
        world.run("things", "add", "kiosk", "--bundle", file)
        assert decode_bundle(file.read_bytes()).url == url


def test_a_bundle_carries_what_the_operator_says(tmp_path):
    with everywhere(tmp_path, "--public-url", "mqtts://hub.example:1") as (world, said):
        assert "\nbundle mqtts://hub.example:1\n" in said
        assert "mqtts://hub.example:1" in world.run("things", "add", "kiosk", "--bundle", "-")
