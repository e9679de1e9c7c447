"""The service: its files, what systemd thinks of them, and how they go away again."""

from __future__ import annotations

import shutil
import subprocess
import tomllib

import pytest

from agent.harness import ROOT
from support.needs import missing
from thingctl_agent import install, unit
from thingctl_agent.cli import main
from thingctl_agent.config import load
from thingctl_agent.errors import ConfigError
from thingctl_protocol.bundle import Bundle, encode_bundle

HANDLERS = str(ROOT / "examples" / "thermostat.py")


def run_install(root, *words):
    return main(["install", "--root", str(root), "--thing", "t1", "--url", "mqtts://broker", *words])


@pytest.fixture
def secrets(tmp_path):
    for name in ("ca", "cert", "key", "password"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_everything_is_written_and_removed_again(tmp_path, secrets, capsys):
    root = tmp_path / "image"
    options = [f"--{name}={secrets / name}" for name in ("ca", "cert", "key")]
    options += ["--password-file", str(secrets / "password"), "--username", "t1", "--handlers", HANDLERS]
    assert run_install(root, *options) == 0
    etc = root / "etc/thingctl-agent"
    config = tomllib.loads((etc / "agent.toml").read_text())
    assert config["thing"] == "t1"
    assert config["handlers"] == ["/etc/thingctl-agent/thermostat.py"]
    assert config["tls"]["key"] == "/etc/thingctl-agent/key.pem"
    assert config["actions"] == {"ping": {}, "getInfo": {}}
    assert (etc / "password").read_text() == "password"
    assert (etc / "agent.toml").stat().st_mode & 0o777 == 0o640
    assert (etc / "key.pem").stat().st_mode & 0o777 == 0o640
    assert load(str(etc / "agent.toml"), {}).broker.tls
    assert "thingctl-agent" in (root / unit.POLKIT[1:]).read_text()
    capsys.readouterr()
    assert main(["uninstall", "--root", str(root)]) == 0
    assert not (root / unit.UNIT[1:]).exists()
    assert not (root / unit.POLKIT[1:]).exists()
    assert etc.exists()
    assert main(["uninstall", "--root", str(root), "--purge"]) == 0
    assert not etc.exists()


def test_a_bundle_is_all_it_needs(tmp_path, capsys):
    bundle = Bundle(
        "kiosk-7",
        "mqtts://broker:8883",
        "kiosk-7",
        "the-password",
        ca="the-ca",
        cert="the-cert",
        key="the-key",
        presence=True,
    )
    (tmp_path / "b").write_bytes(encode_bundle(bundle))
    root = tmp_path / "image"
    words = ["install", "--root", str(root), "--bundle", str(tmp_path / "b")]
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "kiosk-7" in shown
    assert not {secret for secret in ("the-password", "the-key") if secret in shown}
    assert main(words) == 0
    etc = root / "etc/thingctl-agent"
    config = tomllib.loads((etc / "agent.toml").read_text())
    assert (config["thing"], config["url"], config["username"]) == (
        "kiosk-7",
        "mqtts://broker:8883",
        "kiosk-7",
    )
    assert config["presence"] is True
    assert config["password_file"] == "/etc/thingctl-agent/password"
    assert (etc / "password").read_text() == "the-password"
    assert {key: (etc / f"{key}.pem").read_text() for key in config["tls"]} == {
        "ca": "the-ca",
        "cert": "the-cert",
        "key": "the-key",
    }
    assert {path.stat().st_mode & 0o777 for path in etc.iterdir()} == {0o640}
    assert load(str(etc / "agent.toml"), {}).broker.tls


@pytest.mark.parametrize(
    "content", [None, b"{}", b"\xff", b'{"thingctlBundle": 99, "thing": "t", "url": "mqtt://x"}']
)
def test_a_bundle_that_is_none_is_refused_in_words(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "b").write_bytes(content)
    assert main(["install", "--root", str(tmp_path / "image"), "--bundle", str(tmp_path / "b")]) == 2
    assert f"{tmp_path / 'b'}: " in capsys.readouterr().err
    assert not (tmp_path / "image").exists()


def test_a_dry_run_shows_everything_and_does_nothing(tmp_path, capsys):
    assert run_install(tmp_path / "image", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "would write" in out
    assert "NoNewPrivileges=yes" in out
    assert 'thing = "t1"' in out
    assert not (tmp_path / "image").exists()


def test_an_existing_config_is_kept_unless_forced(tmp_path, capsys):
    run_install(tmp_path)
    (tmp_path / unit.CONFIG[1:]).write_text('thing = "mine"\n')
    run_install(tmp_path)
    assert "mine" in (tmp_path / unit.CONFIG[1:]).read_text()
    run_install(tmp_path, "--force")
    assert "mine" not in (tmp_path / unit.CONFIG[1:]).read_text()


def test_the_polkit_rule_can_be_left_out(tmp_path, capsys):
    run_install(tmp_path, "--no-reboot")
    assert not (tmp_path / unit.POLKIT[1:]).exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--thing", "a b"], "can't name a thing"),
        (["--url", "http://x"], "is no broker's URL"),
        (["--handlers", "/no/such.py"], "there is no file /no/such.py"),
        (["--ca", "/no/such.pem"], "/no/such.pem"),
    ],
)
def test_what_would_keep_the_service_from_starting_is_said_now(tmp_path, capsys, words, text):
    assert run_install(tmp_path, *words) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / unit.UNIT[1:]).exists()


def test_without_root_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(install, "_UNREACHABLE", ("/nowhere/",))
    assert main(["install", "--thing", "t", "--url", "mqtt://x"]) == 2
    assert "sudo" in capsys.readouterr().err


def test_an_environment_the_service_could_not_read_is_refused(monkeypatch):
    monkeypatch.setattr("sys.prefix", "/home/pi/venv")
    arguments = type("Arguments", (), {"root": "/", "handlers": []})()
    with pytest.raises(ConfigError, match="/opt/thingctl-agent"):
        install.install(arguments)


@pytest.mark.parametrize("devices", [(), ("/dev/gpiomem", "/dev/i2c-1")])
def test_its_exposure_is_two_at_most(tmp_path, devices):
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed (apt-get install systemd)")
    file = tmp_path / "thingctl-agent.service"
    file.write_text(unit.unit("/bin/true", devices=devices))
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-600:]
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    assert "Unknown" not in verified.stderr, verified.stderr


def test_the_unit_keeps_to_the_rules():
    text = unit.unit("/opt/x/bin/thingctl-agent")
    assert "Type=notify" in text
    assert "WatchdogSec=" in text
    assert "StartLimitIntervalSec=0" in text
    assert "network-online.target" not in text
    assert "ProcSubset" not in text, "it would hide the boot id"
    assert "PrivateDevices=yes" in text
    with_device = unit.unit("/x", devices=["/dev/gpiomem"])
    assert "DeviceAllow=/dev/gpiomem rw\n" in with_device
    assert "PrivateDevices" not in with_device


@pytest.mark.parametrize("value", ['with "quotes"', "back\\slash", "line\nbreak", "ümläut", "\x7f"])
def test_any_value_survives_the_config(value):
    text = unit.config_file({"username": value}, [value], {"ca": value})
    read = tomllib.loads(text)
    assert (read["username"], read["handlers"], read["tls"]["ca"]) == (value, [value], value)
