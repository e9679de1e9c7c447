"""The built-in actions, called as a broker would."""

from __future__ import annotations

import pytest

from thingctl_agent import Agent, actions
from thingctl_agent.actions.reboot import file_system
from thingctl_agent.errors import ConfigError
from thingctl_agent.runtime import boot_id as boot
from thingctl_agent.testing import Device


def device(**settings):
    agent = Agent()
    actions.enable(agent.registry, settings)
    return Device(agent)


def test_none_is_there_until_it_is_enabled():
    with device() as none:
        for name in actions.MODULES:
            assert none.send(name).reason_code == "UNKNOWN_ACTION"


def test_ping():
    with device(ping={}) as one:
        assert one.send("ping").result == "pong"
        assert one.send("ping", text="hello").result == "hello"


def test_get_info():
    with device(getInfo={}) as one:
        info = one.send("getInfo").result
    assert info["bootId"] == boot.boot_id()
    assert info["uptime"] > 0
    assert info["diskFree"] > 0
    assert info["memoryAvailable"] > 0


def test_reboot_runs_its_command_and_answers_later():
    with device(reboot={"command": ["true"], "min_uptime": 0}) as one:
        execution_id = one.start("reboot", {"delay": 0})
        with pytest.raises(TimeoutError):
            one.wait(execution_id, 1)
        assert one.reply(execution_id).status == "IN_PROGRESS"
        assert type(one.records[-1]).__name__ == "Rebooting"


def test_reboot_is_refused_right_after_a_boot_and_where_the_journal_is_in_memory():
    with device(reboot={"command": ["true"], "min_uptime": 1e9}) as one:
        assert one.send("reboot").reason_code == "TOO_SOON"
    with (
        device(reboot={"command": ["true"], "min_uptime": 0, "state_dir": "/proc"}) as one,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("thingctl_agent.actions.reboot._IN_MEMORY", {"proc"})
        assert one.send("reboot").reason_code == "NOT_DURABLE"


def test_a_reboot_command_that_fails_says_so():
    with device(reboot={"command": ["false"], "min_uptime": 0}) as one:
        assert one.send("reboot", delay=0).reason_code == "EXIT_STATUS"


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw 0 0\nb /run tmpfs rw 0 0\nc /run/keep ext4 rw 0 0\n")
    assert file_system("/run/x", str(mounts)) == "tmpfs"
    assert file_system("/run/keep/x", str(mounts)) == "ext4"
    assert file_system("/runner", str(mounts)) == "ext4"
    assert file_system("/x", "/no/such") == ""


def test_launch_uri_opens_what_is_allowed():
    with device(launchUri={"command": ["true"]}) as one:
        assert one.send("launchUri", uri="https://example.com/x").status == "SUCCEEDED"
        for uri in (
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://a b",
            "http://[",
            "",
            "-x",
            "https://\n",
        ):
            assert one.send("launchUri", uri=uri).reason_code == "URI_NOT_ALLOWED", uri


def test_shell_runs_what_is_listed_and_nothing_else():
    with device(shell={"commands": {"hi": ["echo", "hi; ls"], "no": ["false"]}}) as one:
        assert one.send("shell", command="hi").result == {"returncode": 0, "output": "hi; ls\n"}
        assert one.send("shell", command="no").result["returncode"] == 1
        assert one.send("shell", command="rm -rf /").reason_code == "NOT_LISTED"
        assert one.send("shell", command="hi", arguments=["x"]).reason_code == "INVALID_PARAMS"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"format": {}}, "no such built-in action"),
        ({"ping": {"x": 1}}, "unknown field"),
        ({"shell": {}}, "missing required field `commands`"),
    ],
)
def test_what_cannot_be_enabled_is_said(settings, text):
    with pytest.raises(ConfigError, match=text):
        device(**settings)
