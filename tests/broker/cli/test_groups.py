"""``thingctl groups``."""

from __future__ import annotations

import io
import json
import signal

import pytest
import typer.main

from broker.cli.running import QuickCli
from broker.http.running import RunningApi, until
from thingctl_broker.cli.app import app
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
    assert [one["commandId"] for one in quick("groups", "list", "-n", "1", "--json").json] == [second]
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


def test_every_call_about_groups_has_a_word(api):
    """As the description of the API has them: the last part of the path, or what one does with a path."""
    paths = [path for path in api.get("/openapi.json").json["paths"] if path.startswith("/api/v1/groups")]
    words = {path.rpartition("/")[2] for path in paths}
    named = {"groups": "list", "{commandId}": "show"}
    assert {named.get(word, word) for word in words} <= set(
        typer.main.get_command(app).commands["groups"].commands
    )
    assert words >= {"groups", "{commandId}", "pause", "resume", "cancel"}


def _answer(api, status):
    execution = api.newest()
    api.answer(execution.thing, execution.execution_id, json.dumps({"status": status}).encode())


def test_a_group_is_watched_until_it_has_ended(api, cli, begin):
    api.connect("lamp")
    api.connect("lock")
    command_id = begin()
    with cli.start("groups", "watch", command_id) as process:
        assert process.stderr.readline() == b"progress: 0 % 0 of 2 ended\n"
        _answer(api, "SUCCEEDED")
        assert process.stderr.readline() == b"progress: 50 % 1 of 2 ended\n"
        _answer(api, "FAILED")
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 10
    assert "  outcomes  1 FAILED (lock) · 1 SUCCEEDED\n" in out.decode()


def test_ctrl_c_while_watching_says_how_to_go_on(cli, begin):
    command_id = begin()
    with cli.start("groups", "watch", command_id) as process:
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == Exit.INTERRUPTED
    assert f"still RUNNING: thingctl groups watch {command_id}" in err.decode()


def test_a_command_is_shown_by_its_id(quick, begin):
    command_id = begin()
    assert quick("show", command_id) == quick("groups", "show", command_id)
    assert quick("show", command_id, "--json").json["commandId"] == command_id
    found = quick("list", "--command", command_id, "--json").json
    assert {one["commandId"] for one in found} == {command_id}
    unknown = quick("show", "01a22fd8-b003-7001-9189-b8a142446788")
    assert (unknown.code, "thingctl list" in unknown.err) == (Exit.REFUSED, True)


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


def test_five_hundred_outcomes_are_one_line(tmp_path, monkeypatch, capsys):
    names = [f"thing-{number:03}" for number in range(1, 501)]
    api = RunningApi(names)
    try:
        quick = QuickCli(api.url, tmp_path, monkeypatch, capsys)
        for name in names:
            api.connect(name)
        group = quick("send", "--all", "update", "--yes", "--json").json
        until(lambda: len(api.executions()) == 500)
        faults = {"thing-498": "VALVE", "thing-499": "VALVE", "thing-500": "NO_DISK"}
        for execution in api.executions():
            fault = faults.get(execution.thing)
            answer = (
                {"status": "FAILED", "statusReason": {"reasonCode": fault}}
                if fault
                else {"status": "SUCCEEDED"}
            )
            api.answer(execution.thing, execution.execution_id, json.dumps(answer).encode())
        line = "497 SUCCEEDED · 2 FAILED VALVE (thing-498, thing-499) · 1 FAILED NO_DISK (thing-500)"
        assert f"  outcomes  {line}\n" in quick("groups", "show", group["commandId"]).out
        found = quick("list", "--command", group["commandId"], "--reason", "VALVE", "--json").json
        assert [one["thingId"] for one in found] == ["thing-499", "thing-498"]
    finally:
        api.close()
