"""``thingctl groups``."""

from __future__ import annotations

import io
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


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


TO_BOTH = ("--thing", "lamp", "--thing", "lock")


def test_a_command_goes_to_many_things(quick):
    sent = quick(
        "groups", "send", "update", "n=1.10", *TO_BOTH, "--batch", "1", "--ttl", "60", "--yes", "--json"
    )
    assert (sent.json["state"], sent.json["targeted"]) == ("RUNNING", 2)
    assert sent.json["rollout"] == {"batch": 1}
    (execution,) = quick("list", "--action", "update", "--json").json
    assert execution["ttl"] == 60
    assert '"n": 1.10' in quick("list", "--action", "update", "--json").out
    assert quick("groups", "send", "update", "--all", "--yes").code == 0


def test_a_command_with_a_key_is_sent_once(quick):
    command = ("groups", "send", "update", *TO_BOTH, "--idempotency-key", "k", "--yes", "--json")
    assert quick(*command).json["commandId"] == quick(*command).json["commandId"]
    assert len(quick("groups", "--json").json) == 1


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_a_question_names_the_number_of_things(quick, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    ran = quick("groups", "send", "update", *TO_BOTH)
    assert ran.code == code
    assert "Send update to 2 things? [y/N]" in ran.err
    assert len(quick("groups", "--json").json) == (code == 0)


def test_where_no_one_can_answer_nothing_is_sent(quick):
    ran = quick("groups", "send", "update", "--all")
    assert (ran.code, "--yes" in ran.err, quick("groups", "--json").json) == (Exit.USAGE, True, [])


def test_a_dry_run_shows_whom_it_is_for(quick):
    assert quick("groups", "send", "update", *TO_BOTH, "--dry-run", "--json").json["things"] == [
        "lamp",
        "lock",
    ]
    assert "2" in quick("groups", "send", "update", *TO_BOTH, "--dry-run").out
    assert quick("groups", "--json").json == []


@pytest.mark.parametrize("options", [(), ("--all", "--tag", "x"), ("--thing", "lamp", "--type", "light")])
def test_targets_are_of_one_kind(quick, options):
    ran = quick("groups", "send", "update", *options, "--yes")
    assert (ran.code, "one of --thing" in ran.err) == (Exit.USAGE, True)


def test_things_that_are_not_there_are_named(quick):
    ran = quick("groups", "send", "update", "--tag", "nosuch", "--yes")
    assert (ran.code, "no thing matches" in ran.err) == (Exit.REFUSED, True)
