"""The service: its files, what systemd thinks of them, and how they go away again."""

from __future__ import annotations

import errno
import grp
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agent.harness import ROOT
from support.needs import missing
from thingctl_agent.runtime.config import load
from thingctl_agent.setup import install, planning, service, systemd_unit
from thingctl_agent.setup.cli import main
from thingctl_protocol.bundle import Bundle, encode_bundle

PEM = "-----BEGIN SOMETHING-----\n"
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
    assert "thingctl-agent" in (root / systemd_unit.POLKIT[1:]).read_text()
    capsys.readouterr()
    assert main(["uninstall", "--root", str(root)]) == 0
    assert not (root / systemd_unit.UNIT[1:]).exists()
    assert not (root / systemd_unit.POLKIT[1:]).exists()
    assert etc.exists()
    assert main(["uninstall", "--root", str(root), "--purge"]) == 0
    assert not etc.exists()


def test_a_bundle_is_all_it_needs(tmp_path, capsys):
    bundle = Bundle(
        "kiosk-7",
        "mqtts://broker:8883",
        "kiosk-7",
        "the-password",
        ca=PEM + "the-ca",
        cert=PEM + "the-cert",
        key=PEM + "the-key",
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
        "ca": PEM + "the-ca",
        "cert": PEM + "the-cert",
        "key": PEM + "the-key",
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


def config_of(root):
    return tomllib.loads((root / systemd_unit.CONFIG[1:]).read_text())


def bundle_file(directory, name="t1", password="s3cret-1", **fields):
    file = directory / f"{name}.bundle"
    file.write_bytes(
        encode_bundle(Bundle(name, "mqtts://broker", name if password else "", password, **fields))
    )
    return str(file)


def install_bundle(root, file, *words):
    return main(["install", "--root", str(root), "--bundle", file, *words])


def test_a_rotation_replaces_the_password_and_keeps_what_the_owner_wrote(tmp_path, capsys):
    root = tmp_path / "image"
    assert install_bundle(root, bundle_file(tmp_path)) == 0
    config = root / systemd_unit.CONFIG[1:]
    own = config.read_text() + "\n# my own\n[log]\nlevel = 'debug'  # for now\n"
    config.write_text(own)
    before = config.read_text()
    capsys.readouterr()
    assert install_bundle(root, bundle_file(tmp_path, password="s3cret-2"), "--handlers", HANDLERS) == 0
    said = capsys.readouterr().out
    assert (root / "etc/thingctl-agent/password").read_text() == "s3cret-2"
    assert (root / "etc/thingctl-agent/thermostat.py").read_text() == Path(HANDLERS).read_text()
    after = config.read_text()
    changed = "handlers = ['/etc/thingctl-agent/thermostat.py']".replace("'", '"')
    assert after == before.replace("handlers = []", changed)
    assert "replaced " + str(root / "etc/thingctl-agent/password") in said
    assert "changed in agent.toml: handlers" in said
    assert "kept in agent.toml: thing, url" in said
    assert "log.level" in said
    assert "s3cret" not in said


def test_new_handlers_replace_old_ones_of_their_name(tmp_path, capsys):
    handlers = tmp_path / "pump.py"
    text = "from thingctl_agent import Agent\nagent = Agent()\n"
    for content in (text, text + "# new\n"):
        handlers.write_text(content)
        assert run_install(tmp_path / "image", "--handlers", str(handlers)) == 0
        assert (tmp_path / "image/etc/thingctl-agent/pump.py").read_text() == content
    assert config_of(tmp_path / "image")["handlers"] == ["/etc/thingctl-agent/pump.py"]


def test_a_password_in_the_environment_is_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("THINGCTL_PASSWORD", "from-the-environment")
    assert run_install(tmp_path / "image") == 0
    etc = tmp_path / "image/etc/thingctl-agent"
    assert (etc / "password").read_text() == "from-the-environment"
    assert (etc / "password").stat().st_mode & 0o777 == 0o640
    assert config_of(tmp_path / "image")["password_file"] == "/etc/thingctl-agent/password"
    assert load(str(etc / "agent.toml"), {"THINGCTL_PASSWORD": "x"}).login == ("t1", "x")


def test_a_bundle_with_a_certificate_replaces_a_password(tmp_path, capsys):
    assert install_bundle(tmp_path / "image", bundle_file(tmp_path)) == 0
    assert install_bundle(tmp_path / "image", bundle_file(tmp_path, password="", cert=PEM, key=PEM)) == 0
    config = config_of(tmp_path / "image")
    assert not {"username", "password_file"} & set(config)
    assert config["tls"] == {"cert": "/etc/thingctl-agent/cert.pem", "key": "/etc/thingctl-agent/key.pem"}
    assert "removed in agent.toml: username, password_file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('thing = "t1"\ntls = { ca = "/mine.pem" }\n', "tls.ca cannot be changed in place; write ca = "),
        ('thing = "t1"\ntls.ca = "/mine.pem"\n', "tls.ca cannot be changed in place; write ca = "),
        ("thing = \n", "it is not TOML"),
        ('thing = "another"\n', "this device is installed as thing 'another'"),
    ],
)
def test_what_cannot_be_applied_is_refused_and_nothing_changes(tmp_path, capsys, text, reason):
    root = tmp_path / "image"
    (root / "etc/thingctl-agent").mkdir(parents=True)
    (root / systemd_unit.CONFIG[1:]).write_text(text)
    assert install_bundle(root, bundle_file(tmp_path, ca=PEM)) == 1
    assert reason in capsys.readouterr().err
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["agent.toml"]
    assert (root / systemd_unit.CONFIG[1:]).read_text() == text


def test_force_writes_the_config_anew_and_keeps_the_old_one(tmp_path, capsys):
    root = tmp_path / "image"
    run_install(root)
    (root / systemd_unit.CONFIG[1:]).write_text('thing = "mine"\n')
    assert run_install(root, "--force") == 0
    assert config_of(root)["thing"] == "t1"
    assert run_install(root, "--force") == 0, "a second time keeps the copy"
    assert (root / f"{systemd_unit.CONFIG[1:]}.old").read_text() == 'thing = "mine"\n'


@pytest.mark.parametrize("line", ['password = "s3cret"', 'url = "mqtt://u:s3cret@broker"'])
def test_a_dry_run_shows_no_password_that_the_owner_wrote(tmp_path, capsys, line):
    root = tmp_path / "image"
    (root / "etc/thingctl-agent").mkdir(parents=True)
    (root / systemd_unit.CONFIG[1:]).write_text(f'thing = "t1"\n{line}\n')
    assert main(["install", "--root", str(root), "--handlers", HANDLERS, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would have changed in agent.toml: handlers" in out
    assert "s3cret" not in out


def test_a_bundle_replaces_the_credentials_of_a_config_that_is_given(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text('password = "old"\nusername = "old"\nkeepalive = 30\n')
    words = ("--config", str(tmp_path / "mine.toml"))
    assert install_bundle(tmp_path / "image", bundle_file(tmp_path), *words) == 0
    config = config_of(tmp_path / "image")
    assert "password" not in config
    assert (config["username"], config["keepalive"]) == ("t1", 30)


def test_devices_and_a_missing_polkit_rule_outlive_the_next_install(tmp_path, capsys):
    run_install(tmp_path, "--device", "/dev/gpiomem", "--no-reboot")
    run_install(tmp_path, "--device", "/dev/i2c-1")
    assert systemd_unit.devices_of((tmp_path / systemd_unit.UNIT[1:]).read_text()) == [
        "/dev/gpiomem",
        "/dev/i2c-1",
    ]
    assert not (tmp_path / systemd_unit.POLKIT[1:]).exists()
    run_install(tmp_path, "--force")
    assert (tmp_path / systemd_unit.POLKIT[1:]).exists()
    run_install(tmp_path, "--no-reboot")
    assert not (tmp_path / systemd_unit.POLKIT[1:]).exists()


def test_a_config_is_taken_whole_and_its_keys_changed(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text("# mine\nkeepalive = 30\n")
    assert run_install(tmp_path / "image", "--config", str(tmp_path / "mine.toml")) == 0
    assert (
        (tmp_path / "image" / systemd_unit.CONFIG[1:])
        .read_text()
        .startswith("# mine\nkeepalive = 30\nthing = ")
    )
    assert run_install(tmp_path / "image", "--config", str(tmp_path / "mine.toml")) == 1
    assert "--config FILE --force" in capsys.readouterr().err


def test_an_image_makes_its_user_and_starts_the_service_when_it_boots(tmp_path, capsys):
    root = tmp_path / "image"
    assert install_bundle(root, bundle_file(tmp_path, cert=PEM, key=PEM)) == 0
    said = capsys.readouterr().out
    wants = root / systemd_unit.WANTS[1:]
    assert wants.is_symlink()
    assert wants.resolve() == root / systemd_unit.UNIT[1:]
    assert (
        "ExecStart=/opt/thingctl-agent/bin/thingctl-agent run" in (root / systemd_unit.UNIT[1:]).read_text()
    )
    assert "u thingctl-agent -" in (root / systemd_unit.SYSUSERS[1:]).read_text()
    read_by_the_agent = {
        line.split()[1] for line in (root / systemd_unit.TMPFILES[1:]).read_text().splitlines()
    }
    names = ("agent.toml", "agent.toml.old", "password", "ca.pem", "cert.pem", "key.pem")
    assert read_by_the_agent == {f"/etc/thingctl-agent/{name}" for name in names}
    assert f"not done: {root / systemd_unit.PROGRAM[1:]} is not there" in said
    assert said.splitlines()[-1].endswith("nothing was started here")
    assert main(["uninstall", "--root", str(root), "--purge"]) == 0
    assert [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()] == []


def test_the_program_of_an_image_is_the_one_in_it(tmp_path, capsys, monkeypatch):
    root = tmp_path / "image"
    monkeypatch.setattr("sys.prefix", str(root / "usr/lib/agent"))
    run_install(root)
    assert "ExecStart=/usr/lib/agent/bin/thingctl-agent run" in (root / systemd_unit.UNIT[1:]).read_text()
    run_install(root, "--program", "/bin/agent")
    assert "ExecStart=/bin/agent run" in (root / systemd_unit.UNIT[1:]).read_text()


def test_systemd_makes_the_user_and_the_group_of_an_image(tmp_path, capsys):
    if shutil.which("systemd-sysusers") is None or os.geteuid() != 0:
        missing("systemd-sysusers is not installed, or the tests do not run as root")
    root = tmp_path / "image"
    assert install_bundle(root, bundle_file(tmp_path)) == 0
    for program in ("systemd-sysusers", "systemd-tmpfiles"):
        words = ["--create"] if program == "systemd-tmpfiles" else []
        done = subprocess.run(
            [program, f"--root={root}", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    users = {
        line.split(":")[0]: int(line.split(":")[3]) for line in (root / "etc/passwd").read_text().splitlines()
    }
    password = (root / "etc/thingctl-agent/password").stat()
    assert password.st_gid == users["thingctl-agent"] != 0
    assert password.st_mode & 0o777 == 0o640


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A device on which systemctl only notes what it is asked."""
    root, programs = tmp_path / "device", tmp_path / "programs"
    (tmp_path / "venv/lib").mkdir(parents=True)
    programs.mkdir()
    noted = tmp_path / "systemctl.log"
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    (programs / "systemctl").chmod(0o755)
    noted.touch()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(planning, "UNREACHABLE", ("/nowhere/",))
    monkeypatch.setattr(install, "_LIVE", root)
    monkeypatch.setattr(systemd_unit, "USER", grp.getgrgid(os.getgid()).gr_name)
    monkeypatch.setattr(service, "SYSTEMD_RUNS", tmp_path)
    return root, noted


def test_the_service_is_restarted_and_the_last_line_says_what_to_do(live, tmp_path, capsys):
    _, noted = live
    bundle = bundle_file(tmp_path)
    assert main(["install", "--bundle", bundle]) == 0
    said = capsys.readouterr().out.splitlines()
    assert noted.read_text().splitlines() == [
        "daemon-reload",
        "enable --quiet thingctl-agent.service",
        "restart thingctl-agent.service",
    ]
    check = f"{tmp_path}/venv/bin/thingctl-agent check --config /etc/thingctl-agent/agent.toml"
    assert said[-1] == f"running; see whether the broker accepts it: {check}"
    assert said[-2] == f"{bundle} is not needed any more and holds a secret: delete it"
    assert len(said) < 10
    assert main(["install", "--bundle", bundle, "--delete-bundle"]) == 0
    assert "every file was as it should be" in capsys.readouterr().out
    assert not Path(bundle).exists()


def test_without_systemd_the_files_are_in_place_and_the_rest_is_named(live, tmp_path, capsys, monkeypatch):
    root, noted = live
    monkeypatch.setattr(service, "SYSTEMD_RUNS", tmp_path / "none")
    assert main(["install", "--bundle", bundle_file(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "systemd does not run here: the service is not enabled and not started" in said
    assert "thingctl-agent run --config /etc/thingctl-agent/agent.toml" in said
    assert config_of(root)["thing"] == "t1"
    assert noted.read_text() == ""


def test_a_group_that_is_missing_is_named(live, tmp_path, capsys, monkeypatch):
    root, _ = live
    monkeypatch.setattr(service, "has_user", lambda: True)
    monkeypatch.setattr(systemd_unit, "USER", "no-such-group-here")
    assert main(["install", "--bundle", bundle_file(tmp_path)]) == 1
    assert "no such group: 'no-such-group-here'; no file was changed" in capsys.readouterr().err
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_a_disk_that_is_full_leaves_the_old_password(live, tmp_path, capsys, monkeypatch):
    root, noted = live
    assert main(["install", "--bundle", bundle_file(tmp_path)]) == 0
    noted.write_text("")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["install", "--bundle", bundle_file(tmp_path, password="s3cret-2")]) == 1
    assert "No space left on device; no file was changed" in capsys.readouterr().err
    assert (root / "etc/thingctl-agent/password").read_text() == "s3cret-1"
    assert not list(root.rglob("*.new"))
    assert noted.read_text() == ""


def test_a_reader_that_leaves_does_not_stop_the_installation(tmp_path):
    words = ["install", "--root", str(tmp_path / "image"), "--thing", "t", "--handlers", HANDLERS]
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "thingctl_agent.setup.cli", *words]
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "image" / systemd_unit.WANTS[1:]).is_symlink()


def test_the_polkit_rule_can_be_left_out(tmp_path, capsys):
    run_install(tmp_path, "--no-reboot")
    assert not (tmp_path / systemd_unit.POLKIT[1:]).exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--thing", "a b"], "can't name a thing"),
        (["--url", "http://x"], "is no broker's URL"),
        (["--handlers", "/no/such.py"], "there is no file /no/such.py"),
        (["--ca", "/no/such.pem"], "/no/such.pem"),
        (["--state-dir", "/x"], "leave --state-dir out"),
    ],
)
def test_what_would_keep_the_service_from_starting_is_said_now(tmp_path, capsys, words, text):
    assert run_install(tmp_path, *words) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / systemd_unit.UNIT[1:]).exists()


def test_without_root_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(planning, "UNREACHABLE", ("/nowhere/",))
    assert main(["install", "--thing", "t", "--url", "mqtt://x"]) == 2
    assert "sudo" in capsys.readouterr().err


def test_an_environment_the_service_could_not_read_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.prefix", "/home/pi/venv")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert main(["install", "--thing", "t"]) == 2
    assert "sudo python3 -m venv /opt/thingctl-agent" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [(), ("/dev/gpiomem", "/dev/i2c-1")])
def test_its_exposure_is_two_at_most(tmp_path, devices):
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed (apt-get install systemd)")
    file = tmp_path / "thingctl-agent.service"
    file.write_text(systemd_unit.unit("/bin/true", devices=devices))
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-600:]
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    assert "Unknown" not in verified.stderr, verified.stderr


def test_the_unit_keeps_to_the_rules():
    text = systemd_unit.unit("/opt/x/bin/thingctl-agent")
    assert "Type=notify" in text
    assert "WatchdogSec=" in text
    assert "StartLimitIntervalSec=0" in text
    assert "network-online.target" not in text
    assert "ProcSubset" not in text, "it would hide the boot id"
    assert "PrivateDevices=yes" in text
    with_device = systemd_unit.unit("/x", devices=["/dev/gpiomem"])
    assert "DeviceAllow=/dev/gpiomem rw\n" in with_device
    assert "PrivateDevices" not in with_device
