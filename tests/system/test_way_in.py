"""A device gets in with what it was given: bundle, password, options; and is told what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from support.processes import BIN, ROOT, output, process, serving, until_said
from support.waits import soon
from thingctl_protocol.bundle import decode_bundle

pytestmark = pytest.mark.system

THERMOSTAT = ROOT / "examples" / "thermostat.py"


class Site:
    """A closed broker that speaks TLS, and its operator."""

    def __init__(self, serve, directory):
        self.serve = serve
        self.directory = directory
        self.environment = serve.client_environment | {"THINGCTL_CA": str(directory / "tls" / "ca.crt")}

    def thingctl(self, *words):
        done = subprocess.run(
            [str(BIN / "thingctl"), *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def bundle(self, name, device):
        file = self.directory / f"{name}.bundle"
        self.thingctl("things", "add", name, "--bundle", file)
        return shutil.copy(file, device)

    def online(self, name):
        return json.loads(self.thingctl("things", "show", name, "--json"))["online"]

    def set_temperature(self, name):
        return self.thingctl("send", name, "setTemperature", "value=21", "--wait")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    made = [BIN / "thingctl", "tls", "init", "--dir", directory / "tls", "--name", "127.0.0.1"]
    subprocess.run(made, check=True, capture_output=True)
    tls = ("--in-memory", "--tls-dir", str(directory / "tls"))
    with serving(directory / "data", *tls, enrolment="--closed") as serve:
        yield Site(serve, directory)


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A directory of its own, with a home in it and no THINGCTL_ variable."""
    for name in list(os.environ):
        if name.startswith("THINGCTL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*words, **environment):
    argv = [str(BIN / "thingctl-agent"), "doctor", *map(str, words)]
    return subprocess.run(
        argv, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_bundle_alone_lets_a_device_in_and_it_runs_a_command(site, device):
    bundle = site.bundle("porch", device)
    done = check("--bundle", bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    with process(BIN / "thingctl-agent", "run", THERMOSTAT, "--bundle", bundle) as agent:
        until_said(agent, "ready for commands")
        assert "SUCCEEDED" in site.set_temperature("porch")
    secrets = [path for path in device.rglob("*") if path.is_file() and path.name != "porch.bundle"]
    password = decode_bundle((device / "porch.bundle").read_bytes()).password.encode()
    assert secrets, "the journal at least"
    assert not [path for path in secrets if password in path.read_bytes()]


def test_a_script_gets_in_by_its_own_command_line(site, device):
    bundle = site.bundle("lamp", device)
    with process(sys.executable, THERMOSTAT, f"--bundle={bundle}") as agent:
        until_said(agent, "ready for commands")
        assert "SUCCEEDED" in site.set_temperature("lamp")


def test_a_bundle_with_a_certificate_needs_no_file_beside_it(site, device):
    file = site.directory / "cam.bundle"
    site.thingctl("things", "add", "cam", "--bundle", file, "--certificate", site.directory / "tls")
    with process(BIN / "thingctl-agent", "run", THERMOSTAT, THINGCTL_BUNDLE=str(file)) as agent:
        until_said(agent, "ready for commands")
        assert "SUCCEEDED" in site.set_temperature("cam")


def test_the_password_that_was_printed_is_enough(site, device):
    password = json.loads(site.thingctl("things", "add", "hall", "--json"))["password"]
    options = ("--thing", "hall", "--url", site.serve.mqtt, "--ca", site.directory / "tls" / "ca.crt")
    command = (BIN / "thingctl-agent", "run", THERMOSTAT, *options)
    with process(*command, THINGCTL_PASSWORD=password) as agent:
        until_said(agent, "ready for commands")
        soon(lambda: site.online("hall"))


def test_a_rotation_reaches_an_installed_device(site, device):
    image = device / "image"
    etc = image / "etc/thingctl-agent"

    def install(bundle):
        words = ("install", "--root", str(image), "--bundle", bundle, "--handlers", str(THERMOSTAT))
        done = subprocess.run(
            [str(BIN / "thingctl-agent"), *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    install(site.bundle("attic", device))
    before = (etc / "password").read_text()
    (etc / "agent.toml").write_text((etc / "agent.toml").read_text() + "\n# of the owner\n")
    rotated = device / "rotated.bundle"
    site.thingctl("things", "password", "attic", "--bundle", rotated)
    install(str(rotated))
    assert (etc / "password").read_text() != before
    assert "# of the owner" in (etc / "agent.toml").read_text()
    here = (
        "--password-file",
        etc / "password",
        "--ca",
        etc / "ca.pem",
    )  # the config names paths of the device
    command = (BIN / "thingctl-agent", "run", etc / "thermostat.py", "--config", etc / "agent.toml", *here)
    with process(*command) as agent:
        until_said(agent, "ready for commands")
        assert "SUCCEEDED" in site.set_temperature("attic")


@pytest.mark.parametrize(
    ("options", "environment", "text"),
    [
        ({}, {}, "no password was sent: set THINGCTL_PASSWORD or give --bundle"),
        (
            {},
            {"THINGCTL_PASSWORD": "wrong"},
            "it did not take the password of thing 'gate'; after a rotation install the new bundle",
        ),
        ({"--ca": None}, {}, "give --ca FILE (tls.ca = …); the bundle holds it"),
        ({"--url": "mqtts://localhost:{port}"}, {}, "the broker's certificate is not for 'localhost'"),
        ({"--url": "mqtt://127.0.0.1:{port}", "--ca": None}, {}, "use mqtts://"),
        ({"--url": "mqtts://127.0.0.1:{plain}"}, {}, "does not speak TLS"),
        ({"--url": "mqtt://127.0.0.1:{http}", "--ca": None}, {}, "an HTTP server answers at 127.0.0.1:"),
        ({"--url": "mqtts://127.0.0.1:{https}"}, {}, "is this the MQTT port"),
        ({"--url": "mqtts://127.0.0.1:1"}, {}, "127.0.0.1:1 refuses the connection"),
        ({"--url": "mqtts://no-such-host.invalid"}, {}, "the name 'no-such-host.invalid' cannot be resolved"),
    ],
)
@pytest.mark.usefixtures("device")
def test_a_refusal_says_what_was_missing_in_the_log_and_in_check(site, plain, options, environment, text):
    ports = {
        "port": site.serve.mqtt_address[1],
        "plain": plain.mqtt_address[1],
        "http": plain.http_address[1],
        "https": site.serve.http_address[1],
    }
    given = {"--thing": "gate", "--url": site.serve.mqtt, "--ca": str(site.directory / "tls" / "ca.crt")}
    words = [
        word
        for name, value in (given | options).items()
        if value is not None
        for word in (name, value.format(**ports))
    ]
    done = check(*words, **environment)
    assert done.returncode == 1
    assert text in done.stdout, done.stdout
    with process(BIN / "thingctl-agent", "run", THERMOSTAT, *words, **environment) as agent:
        until_said(agent, text)
        assert "Traceback" not in output(agent)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("plain"), "--in-memory") as serve:
        yield serve


@pytest.mark.parametrize("sink", ["closed", "/dev/full"])
def test_an_agent_outlives_the_reader_and_the_disk_of_its_log(plain, device, sink):
    if sink == "closed":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(sink, os.O_WRONLY)
    name = "deaf" if sink == "closed" else "full"
    argv = [str(BIN / "thingctl-agent"), "run", str(THERMOSTAT), "--thing", name, "--url", plain.mqtt]
    with subprocess.Popen(argv, stdout=write, stderr=write) as agent:
        os.close(write)
        try:
            soon(lambda: agent.poll() is not None or online(plain, name))
            assert agent.poll() is None
            agent.terminate()
            assert agent.wait(10) == 0
        finally:
            agent.kill()


def online(serve, name):
    shown = subprocess.run(
        [str(BIN / "thingctl"), "things", "show", name, "--json"],
        env=serve.client_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return shown.returncode == 0 and json.loads(shown.stdout)["online"]


def test_the_url_of_the_other_command_is_taken_and_named(plain, device):
    with process(
        *(BIN / "thingctl-agent", "run", THERMOSTAT), THINGCTL_URL=plain.mqtt, THINGCTL_THING="misnamed"
    ) as agent:
        said = until_said(agent, "ready for commands")
    assert "set THINGCTL_MQTT_URL" in said


def test_an_unknown_action_is_answered_with_those_there_are(plain, device):
    options = ("--thing", "shed", "--url", plain.mqtt)
    with process(BIN / "thingctl-agent", "run", THERMOSTAT, *options) as agent:
        until_said(agent, "ready for commands")
        done = subprocess.run(
            [str(BIN / "thingctl"), "send", "shed", "setTemprature", "--wait"],
            env=plain.client_environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "did you mean 'setTemperature'? It has: setTemperature, getTemperature" in done.stdout
