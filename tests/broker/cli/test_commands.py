"""The real commands against the real server; in processes of their own where that may matter."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading

import pytest

from broker.http.running import TOKEN, until
from support.needs import missing
from thingctl_broker.cli.exits import Exit

EXECUTION = re.compile(r"execution +([0-9a-f-]{36})")


def answer(api, **response):
    """Let the next execution that is waited for end so."""

    def run():
        until(lambda: api.waiting() > 0)
        api.respond({"thingId": "lamp", "executionId": api.link.published[-1].execution_id}, **response)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_send_prints_the_execution(api, cli):
    ran = cli("send", "lamp", "setTemperature", "value=24", "mode=eco", "--ttl", "30")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("lamp setTemperature: SENT (waiting for the thing to connect)\n")
    execution = api.get(f"/api/v1/commands/{EXECUTION.search(ran.out)[1]}").json
    assert (execution["params"], execution["ttl"]) == ({"value": 24, "mode": "eco"}, 30)


def test_send_in_json(api, quick):
    ran = quick("send", "lamp", "x", "--params", '{"a": 1.10}', "b=[1]", "--json")
    assert ran.json["params"] == {"a": 1.1, "b": [1]}
    assert '"a": 1.10' in ran.out
    assert ran.json == api.get(f"/api/v1/commands/{ran.json['executionId']}").json


def test_send_with_a_key_sends_once(api, quick):
    first, second = (quick("send", "lamp", "x", "--idempotency-key", "k-1", "--json") for _ in range(2))
    assert first.json == second.json
    assert len(api.service.table) == 1
    other = quick("send", "lamp", "y", "--idempotency-key", "k-1")
    assert (other.code, other.out) == (Exit.REFUSED, "")
    assert "used for another command" in other.err


@pytest.mark.parametrize("key", ["two\nlines", "é", "two words"])
def test_send_with_what_can_be_no_key(api, quick, key):
    ran = quick("send", "lamp", "x", "--idempotency-key", key)
    assert ran.code in {Exit.USAGE, Exit.REFUSED}
    assert "visible ASCII characters" in ran.err
    assert len(api.service.table) == 0


def test_send_and_wait_until_it_has_succeeded(api, cli):
    api.connect("lamp")
    thread = answer(api, status="SUCCEEDED", result={"currentTemperature": 24.50})
    ran = cli("send", "lamp", "setTemperature", "value=24", "--wait")
    thread.join()
    assert (ran.code, ran.err) == (0, "2025-05-28 02:00:00.000+02:00  published\n")
    assert ran.out.startswith("lamp setTemperature: SUCCEEDED after 0 ms\n")
    assert '  result    {"currentTemperature": 24.5}\n' in ran.out


@pytest.mark.parametrize(
    ("status", "code"), [("FAILED", 10), ("REJECTED", 11), ("TIMED_OUT", 12), ("CANCELED", 13)]
)
@pytest.mark.parametrize("command", ["send", "watch"])
def test_a_command_that_did_not_succeed_has_an_exit_code_of_its_own(api, cli, status, code, command):
    def run():
        until(lambda: api.waiting() > 0)
        if status == "TIMED_OUT":
            api.clock.advance(60)
            api.call(api.service.expire)
        else:
            execution_id = api.link.published[-1].execution_id
            reason = {"reasonCode": "TOO_HOT", "reasonDescription": "it is summer"}
            api.respond({"thingId": "lamp", "executionId": execution_id}, status=status, statusReason=reason)

    api.connect("lamp")
    args = ("watch", api.send()["executionId"]) if command == "watch" else ("send", "lamp", "x", "--wait")
    thread = threading.Thread(target=run)
    thread.start()
    ran = cli(*args)
    thread.join()
    assert ran.code == code
    assert f": {status} after" in ran.out
    assert "  reason    " in ran.out


def test_ctrl_c_while_waiting_says_how_to_go_on(api, cli):
    with cli.start("send", "lamp", "x", "--wait") as process:
        until(lambda: api.waiting() == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    execution_id = api.get("/api/v1/commands").json["executions"][0]["executionId"]
    assert (process.returncode, out) == (130, b"")
    waiting = "waiting for the thing to connect, until 2025-05-28 02:01:00\n"
    assert err.decode() == f"{waiting}still SENT: thingctl watch {execution_id}\n"


def test_a_broker_that_goes_away_while_waiting_leaves_the_execution_to_ask_for(api, cli):
    with cli.start("send", "lamp", "x", "--wait") as process:
        until(lambda: api.waiting() == 1)
        execution_id = api.get("/api/v1/commands").json["executions"][0]["executionId"]
        api.run(api.server.stop())
        _, err = process.communicate(timeout=10)
    assert process.returncode == 3
    waiting, last = err.decode().splitlines()
    assert waiting.startswith("waiting for the thing")
    assert re.match(r"thingctl: (cannot reach|the connection to) the broker at ", last)
    assert last.endswith(f"; still SENT: thingctl watch {execution_id}")


def test_list_is_a_table(api, quick):
    api.connect("lamp")
    api.send("lock", "unlock")
    done = api.send("lamp", "turnOn")
    api.clock.advance(1.25)
    api.respond(done, status="SUCCEEDED")
    ran = quick("list")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["EXECUTION", "THING", "ACTION", "STATUS", "DELIVERY", "CREATED", "TOOK"]
    assert lines[1].split() == [
        done["executionId"], "lamp", "turnOn", "SUCCEEDED", "STARTED", "2025-05-28", "02:00:00", "1.25", "s",
    ]  # fmt: skip
    assert lines[2].split()[1:] == ["lock", "unlock", "SENT", "QUEUED", "2025-05-28", "02:00:00"]
    assert [line.index("lamp" if i == 1 else "lock") for i, line in enumerate(lines) if i] == [38, 38]


def test_list_filters(api, quick):
    lamp, lock = api.send("lamp", "turnOn"), api.send("lock", "unlock")
    api.post(f"/api/v1/commands/{lock['executionId']}/cancel")

    def ids(*args):
        return [execution["executionId"] for execution in quick("list", "--json", *args).json]

    assert ids() == [lock["executionId"], lamp["executionId"]]
    assert ids("--thing", "lamp") == [lamp["executionId"]]
    assert ids("--action", "unlock") == [lock["executionId"]]
    assert ids("--status", "canceled", "--status", "FAILED") == [lock["executionId"]]
    assert ids("--limit", "1") == [lock["executionId"]]


def test_list_walks_as_many_pages_as_it_takes(api, quick):
    for _ in range(1200):
        api.call(api.service.send, "lamp" if len(api.service.table) < 600 else "lock", "x")
    found = quick("list", "--limit", "1100", "--json").json
    assert len({execution["executionId"] for execution in found}) == 1100


def test_an_empty_list_says_so(quick):
    ran = quick("list")
    assert (ran.code, ran.out, ran.err) == (0, "", "no executions\n")
    assert quick("list", "--json").json == []


def test_show_tells_everything(api, cli):
    api.connect("lamp")
    execution = api.send("lamp", "turnOn", params={"level": 3}, ttl=30)
    api.clock.advance(30)
    api.call(api.service.expire)
    api.clock.advance(90)
    api.respond(execution, status="SUCCEEDED", result=[1])
    ran = cli("show", execution["executionId"])
    assert ran.code == 0
    assert (
        ran.out
        == f"""\
lamp turnOn: TIMED_OUT after 30 s
  execution {execution["executionId"]}
  command   {execution["commandId"]}
  params    {{"level": 3}}
  reason    NOT_ACKNOWLEDGED: the request was published but not acknowledged; it may have run
  retry     it may run twice
  late      SUCCEEDED, 1 min 30 s too late: [1]
  delivery  STARTED, attempts: 1
  expires   2025-05-28 02:00:30.000+02:00 (ttl 30 s)
  2025-05-28 02:00:00.000+02:00  created
  2025-05-28 02:00:00.000+02:00  published
  2025-05-28 02:00:30.000+02:00  ended
  2025-05-28 02:02:00.000+02:00  late
"""
    )
    assert cli("show", execution["executionId"], "--json").json["status"] == "TIMED_OUT"


def test_watch_follows_an_execution_to_its_end(api, cli):
    api.connect("lamp")
    execution = api.send()
    with cli.start("watch", execution["executionId"]) as process:
        lines = iter(process.stderr.readline, b"")
        assert next(lines).endswith(b"  published\n")
        api.respond(execution, status="IN_PROGRESS", progress={"percent": 40, "message": "half way"})
        assert next(lines).endswith(b"  at work\n")
        assert next(lines) == b"progress: 40 % half way\n"
        api.respond(execution, status="SUCCEEDED")
        out, err = process.communicate(timeout=10)
        assert out.startswith(b"lamp turnOn: SUCCEEDED after")
        assert (b"progress" in out, err) == (False, b"")
    assert process.returncode == 0


def test_cancel(api, quick):
    api.connect("lamp")
    queued, published = api.send("lock", "unlock"), api.send("lamp", "turnOn")
    ran = quick("cancel", queued["executionId"])
    assert (ran.code, "lock unlock: CANCELED" in ran.out) == (0, True)
    ran = quick("cancel", published["executionId"])
    assert (ran.code, "the thing has been asked to stop" in ran.out) == (0, True)
    ran = quick("cancel", queued["executionId"])
    assert (ran.code, ran.err) == (1, "thingctl: the execution has ended: CANCELED\n")
    assert quick("cancel", published["executionId"], "--json").json["status"] == "SENT"


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\n\u202egnp.exe\u2028"


def test_nothing_that_a_device_says_reaches_the_terminal_as_control_characters(api, quick):
    api.connect("lamp")
    execution = api.send("lamp", "x", params={"text": ESCAPES})
    progress = {"percent": 1, "message": ESCAPES}
    reason = {"reasonCode": ESCAPES[:10], "reasonDescription": ESCAPES}
    api.respond(execution, status="IN_PROGRESS", progress=progress, statusReason=reason)
    api.respond(execution, status="FAILED", result={ESCAPES: [ESCAPES]}, statusReason=reason)
    api.call(api.service.connected, "lamp", "client" + ESCAPES)
    announced = json.dumps({"actions": [{"name": ESCAPES, "description": ESCAPES}]}).encode()
    api.call(api.service.announce, "lamp", announced)
    execution_id = execution["executionId"]
    for args in (
        ["show", execution_id],
        ["watch", execution_id],
        ["list"],
        ["things"],
        ["cancel", execution_id],
    ):
        for more in ([], ["--json"]) if args[0] != "watch" else ([],):
            ran = quick(*args, *more)
            shown = (ran.out + ran.err).replace("\n", "")
            assert shown.isprintable(), (args, shown)
    assert quick("show", execution_id, "--json").json["result"] == {ESCAPES: [ESCAPES]}  # and nothing is lost


def run_on_a_terminal(cli, *args, env=None):
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        missing(f"there is no terminal to try it on: {error.strerror} (mount -t devpts devpts /dev/pts)")
    with cli.start(*args, env=env, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:
            pass  # the other end is closed
        process.communicate(timeout=10)
    os.close(ours)
    return shown.decode()


def test_statuses_are_in_colour_on_a_terminal_that_wants_it(api, cli):
    execution = api.send()
    api.respond(execution, status="SUCCEEDED")
    terminal = {"TERM": "xterm"}
    assert "\x1b[32mSUCCEEDED\x1b[0m" in run_on_a_terminal(cli, "list", env=terminal)
    assert "\x1b" not in run_on_a_terminal(cli, "list", env=terminal | {"NO_COLOR": "1"})
    assert "\x1b" not in run_on_a_terminal(cli, "list", env={"TERM": "dumb"})
    assert "\x1b" not in cli("list", env=terminal).out


def test_a_terminal_that_knows_only_ascii_is_no_fault(api, cli):
    execution = api.send("lamp", "x", params={"text": "grün"})
    ran = cli("show", execution["executionId"], env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (ran.code, '{"text": "gr\\xfcn"}' in ran.out) == (0, True)


def test_a_reader_that_leaves_early_is_no_fault(api, cli):
    for _ in range(1200):
        api.call(api.service.send, "lamp" if len(api.service.table) < 600 else "lock", "x")
    with cli.start("list", "--limit", "1200") as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=10)
    assert err == b""


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["send", "nobody", "x"],
            "no thing is named 'nobody' (at /thingId); to see what there is: thingctl things list",
        ),
        (
            ["send", "lamp", "#"],
            "'#' can't name an action: 1 to 128 of the characters A-Z a-z 0-9 : _ . - / (at /action)",
        ),
        (["send", "lamp", "x", "--ttl", "9999999"], "ttl must be from 1 to 604800 seconds (at /ttl)"),
        (
            ["show", "nothing"],
            "no execution has the id 'nothing', or it ended long ago; to see what there is: thingctl list",
        ),
        (
            ["cancel", "nothing"],
            "no execution has the id 'nothing', or it ended long ago; to see what there is: thingctl list",
        ),
        (["list", "--thing", "a b"], "thingId must be the name of a thing (at thingId)"),
    ],
)
def test_what_the_broker_refuses_is_told_in_a_sentence(quick, args, sentence):
    ran = quick(*args)
    assert (ran.code, ran.out, ran.err) == (1, "", f"thingctl: {sentence}\n")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["send"],
        ["send", "lamp"],
        ["send", "lamp", "x", "value"],
        ["send", "lamp", "x", "=1"],
        ["send", "lamp", "x", "a=1", "a=2"],
        ["send", "lamp", "x", "--params", "["],
        ["send", "lamp", "x", "--params", "[]"],
        ["send", "lamp", "x", "--ttl", "soon"],
        ["send", "lamp", "x", "--ttl", "0"],
        ["list", "--limit", "0"],
        ["list", "--url", "localhost:8080"],
        ["list", "--url", "ftp://localhost"],
        ["list", "--url", "http://localhost:port"],
        ["show"],
        ["show", "a/../b?c#d"],
    ],
)
def test_a_wrong_command_line_has_a_code_of_its_own(api, quick, args):
    ran = quick(*args)
    assert ran.code == 2
    assert len(api.service.table) == 0


def test_params_that_are_not_utf_8_are_a_usage_error(cli):
    with cli.start("send", "lamp", "x", b"a=\xff") as process:
        _, err = process.communicate(timeout=10)
    assert process.returncode in {1, 2}
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    "args",
    [
        ["send", "lamp", "x", b"u=\xff"],
        ["send", "lamp", "x", b"-f", b"u=\xff"],
        ["send", b"\xff", "x"],
        ["things", "show", b"\xff"],
        ["things", "list", "--tag", b"\xff"],
        ["tokens", "remove", b"\xff"],
        ["list", "--thing", b"\xff"],
    ],
    ids=str,
)
def test_an_argument_that_is_no_text_names_the_locale(cli, args):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for env, text in (
        ({"LC_ALL": "C.UTF-8"}, "UTF-8 text"),
        (ascii_only, "text in this locale (LC_ALL=C): set LC_ALL=C.UTF-8"),
    ):
        with cli.start(*args, env=env) as process:
            out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err.decode()) == (
            Exit.USAGE,
            b"",
            f"thingctl: an argument is not {text}\n",
        )


def test_list_since_until_and_by_tag(api, quick):
    api.send("lamp", "turnOn")
    quick("things", "set", "lamp", "--tag", "hall")
    for args, count in (
        (["--since", "2025-05-28T00:00:00Z"], 1),
        (["--until", "2025-05-28T00:00:00Z"], 0),
        (["--since", "1h"], 0),
        (["--until", "1h"], 1),
        (["--tag", "hall"], 1),
        (["--tag", "attic"], 0),
        (["--reason", "NO_DISK"], 0),
    ):
        assert len(quick("list", "--json", *args).json) == count, args
    assert quick("list", "--since", "soon").code == Exit.USAGE


@pytest.mark.parametrize(
    "command", [["list"], ["send", "lamp", "x"], ["show", "x"], ["cancel", "x"], ["things"]]
)
def test_a_broker_that_is_not_there(quick, command):
    ran = quick(*command, "--url", "http://127.0.0.1:1")
    assert (ran.code, ran.err) == (
        3,
        (
            "thingctl: cannot reach the broker at http://127.0.0.1:1: Connection refused; "
            "start a broker (thingctl serve), or name another one with --url or THINGCTL_URL\n"
        ),
    )


def test_a_token_that_is_not_valid(cli):
    for args, env, source in (
        (["--token", "wrong"], {}, "--token"),
        ([], {"THINGCTL_TOKEN": "wrong"}, "THINGCTL_TOKEN"),
    ):
        ran = cli("list", *args, env=env)
        assert (ran.code, ran.err) == (
            4,
            (
                f"thingctl: the API token is not valid; the token comes from {source}; "
                "the broker's administrator makes one: thingctl tokens add NAME SCOPE\n"
            ),
        )


def test_the_admin_token_of_this_machine_is_found(api, quick, tmp_path):
    no_token = {"THINGCTL_TOKEN": None}
    ran = quick("list", env=no_token)
    assert ran.code == 4
    assert "no API token" in ran.err
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text(TOKEN + "\n")
    assert quick("list", env=no_token | {"THINGCTL_DATA_DIR": str(tmp_path / "data")}).code == 0
    (tmp_path / ".local/state").mkdir(parents=True)
    (tmp_path / "data").rename(tmp_path / ".local/state/thingctl")
    assert quick("list", env=no_token).code == 0


def test_options_win_over_the_environment(api, quick):
    wrong = {"THINGCTL_URL": "http://127.0.0.1:1", "THINGCTL_TOKEN": "wrong"}
    assert quick("list", "--url", api.url, "--token", TOKEN, env=wrong).code == 0


def test_url_tricks_are_no_way_to_a_local_token(quick, tmp_path):
    """The admin token of this machine is sent nowhere else."""
    (tmp_path / ".local/state/thingctl").mkdir(parents=True)
    (tmp_path / ".local/state/thingctl/admin-token").write_text(TOKEN)
    for url in (
        "http://192.0.2.1",
        "http://localhost.example:80",
        "http://127.example",
    ):
        ran = quick("list", "--url", url, env={"THINGCTL_TOKEN": None})
        assert (ran.code, "is another machine" in ran.err) == (4, True), url
    ran = quick("list", "--url", "http://127.0.0.1@192.0.2.1", env={"THINGCTL_TOKEN": None})
    assert (ran.code, "has a user name" in ran.err) == (2, True)
