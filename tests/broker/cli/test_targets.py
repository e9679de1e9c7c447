"""``thingctl send`` to many things."""

from __future__ import annotations

import io

import pytest

from thingctl_broker.cli.exits import Exit, of_statuses


class Terminal(io.StringIO):
    """A terminal with an answer."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "options",
    [("--thing", "lamp,lock"), ("--thing", "lamp", "--thing", "lock"), ("--all",)],
    ids=" ".join,
)
def test_a_command_goes_to_many_things(quick, options):
    sent = quick(
        "send",
        *options,
        "water",
        "n=1.10",
        "--batch",
        "2",
        "--rate",
        "50.5",
        "--max-failures",
        "3",
        "--yes",
        "--json",
    )
    assert (sent.code, sent.json["action"], sent.json["targeted"]) == (0, "water", 2)
    assert sent.json["rollout"] == {"batch": 2, "rate": 50.5, "maxFailures": 3}


def test_params_of_a_command_to_many_keep_their_digits(api, quick):
    api.connect("lamp")
    api.connect("lock")
    quick("send", "--all", "water", "n=1.10", "-f", "t=1.0", "--ttl", "60", "--yes")
    shown = quick("list", "--action", "water", "--json")
    assert ('"n": 1.10' in shown.out, {one["ttl"] for one in shown.json}) == (True, {60})


def test_with_a_key_it_is_sent_once(quick):
    command = ("send", "--all", "water", "--idempotency-key", "k", "--yes", "--json")
    assert quick(*command).json["commandId"] == quick(*command).json["commandId"]


@pytest.mark.parametrize("key", ["a\nb", "schlüssel"])
def test_what_can_be_no_key_sends_nothing(quick, key):
    ran = quick("send", "--all", "water", "--idempotency-key", key, "--yes")
    assert (ran.code, "idempotency key" in ran.err) == (Exit.USAGE, True)
    assert quick("groups", "--json").json == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", Exit.REFUSED), ("", Exit.REFUSED)])
def test_a_question_names_action_and_number(quick, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    ran = quick("send", "--all", "water")
    assert (ran.code, "Send water to 2 things? [y/N]" in ran.err) == (code, True)
    assert len(quick("groups", "--json").json) == (code == 0)


def test_one_thing_needs_no_question(quick):
    assert quick("send", "--thing", "lamp", "water").code == 0
    assert quick("send", "--all", "water").code == Exit.USAGE


def test_a_dry_run_sends_nothing(quick):
    assert quick("send", "--all", "water", "--dry-run", "--json").json["things"] == ["lamp", "lock"]
    assert quick("groups", "--json").json == []


@pytest.mark.parametrize(
    "words",
    [
        ("send", "lamp"),
        ("send", "lamp", "water", "--batch", "3"),
        ("send", "lamp", "water", "--dry-run"),
        ("send", "--all", "--tag", "x", "water", "--yes"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_sends_nothing(quick, words):
    assert quick(*words).code == Exit.USAGE
    assert quick("list", "--json").json == quick("groups", "--json").json == []


def test_send_waits_for_the_end_everywhere(api, cli):
    api.connect("lamp")
    api.connect("lock")
    with cli.start("send", "--all", "water", "--yes", "--wait", "--json") as process:
        process.stderr.readline()
        for execution in api.executions():
            api.answer(execution.thing, execution.execution_id, b'{"status": "SUCCEEDED"}')
        out, _ = process.communicate(timeout=10)
    assert (process.returncode, b'"FINISHED"' in out) == (0, True)


@pytest.mark.parametrize(
    ("statuses", "refused", "code"),
    [
        ({"SUCCEEDED": 3}, 0, Exit.OK),
        ({"SUCCEEDED": 3}, 1, Exit.REFUSED),
        ({"SUCCEEDED": 3, "CANCELED": 1, "TIMED_OUT": 1}, 0, 12),
        ({"FAILED": 1, "REJECTED": 9}, 1, 10),
        ({"FAILED": 0, "SUCCEEDED": 1}, 0, Exit.OK),
    ],
)
def test_the_exit_code_of_many_is_the_lowest_of_what_went_wrong(statuses, refused, code):
    assert of_statuses(statuses, refused=refused) == code
