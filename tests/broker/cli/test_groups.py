"""``thingctl groups``."""

from __future__ import annotations

import json

import pytest

from thingctl_broker.cli.exits import Exit


@pytest.fixture
def begin(api):
    """Send a command to two things, to one after the other; return its id."""

    def begin(action: str = "update") -> str:
        body = {
            "targets": {"things": ["lamp", "lock"]},
            "action": action,
            "ttl": 3600,
            "rollout": {"batch": 1},
        }
        reply = api.post("/api/v1/commands", json.dumps(body))
        assert reply.status == 202
        return reply.json["commandId"]

    return begin


def test_commands_to_many_things_are_listed_newest_first(quick, begin):
    first, second = begin("update"), begin("restart")
    table = quick("groups").out.splitlines()
    assert table[0].split()[:3] == ["COMMAND", "ACTION", "STATE"]
    assert [line.split()[:4] for line in table[1:]] == [
        [second, "restart", "RUNNING", "2"],
        [first, "update", "RUNNING", "2"],
    ]
    assert [one["commandId"] for one in quick("groups", "list", "--json").json] == [second, first]
    quick("groups", "pause", first)
    paused = quick("groups", "list", "--state", "paused", "--state", "canceled", "--json").json
    assert [one["commandId"] for one in paused] == [first]
    assert quick("groups", "list", "--state", "stopped").err == "no such groups\n"


def test_a_command_to_many_things_is_shown_paused_resumed_and_canceled(quick, begin):
    command_id = begin()
    shown = quick("groups", "show", command_id).out
    assert "RUNNING" in shown
    assert command_id in shown
    assert "PAUSED" in quick("groups", "pause", command_id).out
    assert quick("groups", "resume", command_id, "--json").json["state"] == "RUNNING"
    assert quick("groups", "cancel", command_id, "--json").json["state"] == "CANCELED"
    ran = quick("groups", "resume", command_id)
    assert (ran.code, "CANCELED" in ran.err) == (Exit.REFUSED, True)
    assert quick("groups", "show", "01a22fd8-b003-7001-9189-b8a142446788").code == Exit.REFUSED


def test_none_is_said(quick):
    assert "no commands to many things" in quick("groups").err
