"""The broker as a service: its files, what systemd thinks of them, and how they go away again."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.needs import missing
from support.processes import BIN, process, until_said
from thingctl_broker.app.config import read_settings
from thingctl_broker.cli import install as module
from thingctl_broker.cli import unit
from thingctl_broker.cli.app import run
from thingctl_broker.cli.exits import Exit
from thingctl_broker.cli.installed import installed
from thingctl_broker.security.certificate_authority import names_in

SANDBOX = r"^(?:Protect|Private|Restrict|SystemCall|Memory|NoNew|Lock|Key|Proc|Remove).*"
UNITS = {"closed": {}, "low ports": {"low_ports": True}}


@pytest.fixture
def thingctl(monkeypatch, capsys):
    """Run the command in this process; return the exit code, and what it printed."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["thingctl", *map(str, words)])
        try:
            code = run()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def tls(tmp_path, thingctl):
    folder = tmp_path / "tls"
    assert thingctl("tls", "init", "--dir", folder, "--name", "broker.example", "--name", "localhost")[0] == 0
    return folder


@pytest.fixture
def image(tmp_path):
    return tmp_path / "image"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def config_of(image):
    return tomllib.loads((image / unit.CONFIG[1:]).read_text())


def test_an_image_gets_all_its_files_and_they_go_away_again(thingctl, image, tls):
    code, out, err = thingctl(
        "install", "--root", image, "--tls-dir", tls, "--public-url", "mqtts://broker.example:8883"
    )
    assert (code, err) == (0, "")
    assert "when the image boots" in out
    config = image / unit.CONFIG[1:]
    settings = read_settings(config)
    assert settings.data_dir == "/var/lib/thingctl"
    assert (settings.mqtt.bind, settings.http.bind) == ("0.0.0.0:8883", "0.0.0.0:8443")
    assert settings.mqtt.public_url == "mqtts://broker.example:8883"
    assert settings.http.tls_key == settings.mqtt.tls_key == "/etc/thingctl/tls/server.key"
    assert settings.mqtt.tls_client_ca == settings.mqtt.tls_ca == "/etc/thingctl/tls/ca.crt"
    assert not settings.open
    copies = {path.name: mode(path) for path in (image / unit.TLS[1:]).iterdir()}
    assert copies == {"ca.crt": 0o644, "server.crt": 0o644, "server.key": 0o640}, "the CA's key stays away"
    assert mode(config) == 0o640
    assert mode(config.parent) == mode(config.parent / "tls") == 0o755
    assert f"ExecStart={sys.prefix}/bin/thingctl serve --config {unit.CONFIG}\n" in (
        image / unit.UNIT[1:]
    ).read_text("utf-8")
    assert str((image / unit.WANTED[1:]).readlink()) == unit.UNIT
    assert (image / unit.SYSUSERS[1:]).read_text().startswith("u thingctl ")
    assert (image / unit.TMPFILES[1:]).read_text().splitlines() == [
        "z /etc/thingctl/broker.toml 0640 root thingctl -",
        "z /etc/thingctl/tls/server.key 0640 root thingctl -",
    ]
    code, out, _ = thingctl("uninstall", "--root", image)
    assert (code, "--purge removes them" in out) == (0, True)
    assert not os.path.lexists(image / unit.UNIT[1:])
    assert not os.path.lexists(image / unit.WANTED[1:])
    assert config.exists()
    assert thingctl("uninstall", "--root", image, "--purge")[0] == 0
    assert [path for path in image.rglob("*") if not path.is_dir()] == []
    assert thingctl("uninstall", "--root", image)[0] == 0


def test_a_dry_run_shows_everything_and_does_nothing(thingctl, image, tls):
    code, out, _ = thingctl("install", "--root", image, "--tls-dir", tls, "--dry-run")
    assert code == 0
    assert all(line.startswith(("would ", "    ")) or not line for line in out.splitlines())
    assert "NoNewPrivileges=yes" in out
    assert 'data_dir = "/var/lib/thingctl"' in out
    assert not image.exists()


def test_a_dry_run_needs_no_root_and_a_real_one_does(thingctl, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(module, "_HIDDEN", ("/nowhere/",))
    code, out, _ = thingctl("install", "--dry-run")
    assert code == 0
    assert "would add the user thingctl" in out
    assert "would make a private authority and a certificate for" in out
    assert "would run systemctl enable thingctl.service" in out
    for words in (["install"], ["uninstall"]):
        code, _, err = thingctl(*words)
        assert (code, "run it with sudo" in err) == (Exit.USAGE, True)


@pytest.mark.parametrize("name", ["prefix", "base_prefix"])
def test_an_environment_that_the_service_cannot_read_is_refused(thingctl, monkeypatch, name):
    for one in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, one, "/home/ann/python" if one == name else "/usr")
    code, _, err = thingctl("install", "--dry-run")
    assert code == Exit.USAGE
    assert "/home/ann/python" in err
    assert "sudo /opt/thingctl/bin/thingctl install" in err


def test_again_changes_what_is_given_keeps_the_rest_and_says_both(thingctl, image, tls):
    thingctl("install", "--root", image, "--tls-dir", tls)
    config = image / unit.CONFIG[1:]
    text = config.read_text().replace("[http]", "# ours\n[http]\nburst = 9")
    config.write_text(text)
    code, out, err = thingctl("install", "--root", image, "--http", "127.0.0.1:9000")
    assert (code, err) == (0, "")
    assert "keep data_dir = /var/lib/thingctl" in out
    assert "change http.bind: 0.0.0.0:8443 -> 127.0.0.1:9000" in out
    assert config.read_text() == text.replace("0.0.0.0:8443", "127.0.0.1:9000")
    before = {path: path.read_bytes() for path in image.rglob("*") if path.is_file()}
    assert thingctl("install", "--root", image)[0] == 0
    assert before == {path: path.read_bytes() for path in image.rglob("*") if path.is_file()}


def test_new_certificates_take_the_place_of_the_old_ones(thingctl, image, tls, tmp_path):
    thingctl("install", "--root", image, "--tls-dir", tls)
    thingctl("tls", "server", "--dir", tls, "--name", "other.example")
    assert thingctl("install", "--root", image, "--tls-dir", tls)[0] == 0
    assert names_in((image / "etc/thingctl/tls/server.crt").read_bytes()) == ("other.example",)


def test_settings_of_ones_own_are_taken(thingctl, image, tls, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('# mine\n[mqtt]\nbind = "0.0.0.0:1883"\n[commands]\nttl_default = 7\n')
    code, out, err = thingctl("install", "--root", image, "--config", own, "--tls-dir", tls)
    assert (code, err) == (0, "")
    assert f"take the settings of {own}" in out
    settings = read_settings(image / unit.CONFIG[1:])
    assert (settings.mqtt.bind, settings.commands.ttl_default) == ("0.0.0.0:1883", 7)
    assert settings.mqtt.tls_cert
    assert (image / unit.CONFIG[1:]).read_text().startswith("# mine\n")
    own.write_text(own.read_text().replace("# mine", "# other"))
    assert thingctl("install", "--root", image, "--config", own, "--tls-dir", tls)[0] == 0
    before = image / f"{unit.CONFIG[1:]}.before"
    assert (before.read_text().splitlines()[0], mode(before)) == ("# mine", 0o640)


@pytest.mark.parametrize(
    ("settings", "words", "text"),
    [
        ('data_dir = "/srv/x"', [], "may write below /var/lib/thingctl only"),
        ("link.username = 'w'", [], "a cluster's worker"),
        ("nonsense = 1", [], "the broker would not start"),
        ("[mqtt", [], "own.toml: "),
        ('mqtt.bind = "0.0.0.0:1"', ["--mqtt", "0.0.0.0:2"], "write yourself"),
        ("", ["--mqtt", "1883"], "is not HOST:PORT"),
        ("", ["--http", "0.0.0.0:80"], "thingctl tls init --dir DIR --name HOST"),
        ("", ["--tls-dir", "/no/such"], "thingctl tls init --dir /no/such"),
    ],
)
def test_what_would_keep_the_service_from_starting_is_said_now(thingctl, image, settings, words, text):
    own = image.with_name("own.toml")
    own.write_text(settings)
    code, _, err = thingctl("install", "--root", image, "--config", own, *words)
    assert (code, text in err) == (Exit.USAGE, True), err
    assert not image.exists()


def test_a_file_that_cannot_be_read_is_named(thingctl, image):
    code, _, err = thingctl("install", "--root", image, "--config", "/no/such.toml")
    assert (code, "/no/such.toml cannot be read" in err) == (Exit.USAGE, True)


def test_low_ports_are_allowed_and_no_other_privilege(thingctl, image, tls):
    thingctl("install", "--root", image, "--tls-dir", tls, "--http", "0.0.0.0:443")
    text = (image / unit.UNIT[1:]).read_text()
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in text
    assert "PrivateUsers" not in text
    thingctl("install", "--root", image, "--http", "0.0.0.0:8443")
    assert "AmbientCapabilities=\n" in (image / unit.UNIT[1:]).read_text()


@pytest.mark.parametrize("options", UNITS.values(), ids=UNITS)
def test_its_exposure_is_two_at_most(tmp_path, options):
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed (apt-get install systemd)")
    file = tmp_path / unit.SERVICE
    file.write_text(unit.unit("/bin/true", **options))
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-600:]
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_sandbox_is_that_of_the_workers():
    """What one unit learns the other has to learn, too."""
    worker = (Path(__file__).parents[3] / "configs/cluster/thingctl-worker@.service").read_text()

    def sandbox(text):
        return set(re.findall(SANDBOX, text, re.MULTILINE))

    assert sandbox(worker) <= sandbox(unit.unit("/x"))


@pytest.mark.system
def test_what_is_installed_serves_says_so_to_systemd_and_is_found(
    thingctl, image, tls, tmp_path, monkeypatch
):
    ports = [free_port(), free_port()]
    words = ["--mqtt", f"127.0.0.1:{ports[0]}", "--http", f"127.0.0.1:{ports[1]}"]
    assert thingctl("install", "--root", image, "--tls-dir", tls, *words)[0] == 0
    config = tmp_path / "moved.toml"
    config.write_text((image / unit.CONFIG[1:]).read_text().replace('"/etc/', f'"{image}/etc/'))
    notified = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notified))
        systemd.settimeout(30)
        command = [BIN / "thingctl", "serve", "--config", config, "--data-dir", image / "var/lib/thingctl"]
        environ = {"NOTIFY_SOCKET": str(notified), "WATCHDOG_USEC": "200000"}
        with process(*command, **environ) as broker:
            assert systemd.recv(100) == b"READY=1"
            assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            found = installed(image)
            assert found.url == f"https://localhost:{ports[1]}"
            assert found.public_url == f"https://broker.example:{ports[1]}"
            context = ssl.create_default_context(cafile=found.ca)
            with urlopen(f"{found.url}/readyz", context=context) as answer:
                assert answer.status == 200
            monkeypatch.setattr("thingctl_broker.cli.settings.installed", lambda: found)
            monkeypatch.setattr("thingctl_broker.cli.console.installed", lambda: found)
            for name in ("THINGCTL_URL", "THINGCTL_TOKEN", "THINGCTL_CA"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("THINGCTL_DATA_DIR", str(tmp_path / "nothing"))
            code, out, err = thingctl("console")
            assert (code, err) == (0, "")
            assert out.startswith(f"https://broker.example:{ports[1]}/#sign-in=")
            until_said(broker, "console")
            broker.terminate()
            assert broker.wait(10) == 0
            while (state := systemd.recv(100)) == b"WATCHDOG=1":
                pass
            assert state == b"STOPPING=1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_console_of_what_is_installed_is_where_the_settings_say(tmp_path):
    config = tmp_path / unit.CONFIG[1:]
    config.parent.mkdir(parents=True)
    config.write_text('[http]\npublic_url = "https://fleet.example/thingctl/"\n')
    found = installed(tmp_path)
    assert (found.url, found.public_url) == ("http://127.0.0.1:8080", "https://fleet.example/thingctl")
