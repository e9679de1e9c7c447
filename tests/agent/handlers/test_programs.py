"""``ctx.run``: pipes, process groups and their end."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from agent.harness import until
from thingctl_agent import Canceled, CommandFailed, Context
from thingctl_agent.handlers.programs import HEAD_MAX, KILL_AFTER, Lines, Output

CAFE = os.fsdecode(b"/opt/caf\xe9")


@pytest.fixture
def ctx():
    context = Context("e1", "a", None)
    yield context
    context.stop()


@pytest.fixture
def no_pidfd(monkeypatch):
    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse)


def shell(text):
    return ["sh", "-c", text]


def elapsed(call):
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_in(path):
    return int(until(lambda: path.exists() and path.read_text().strip()))


def test_much_input_and_much_output_do_not_lock_each_other(ctx):
    assert ctx.run(["cat"], stdin=b"x" * 60_000).output == "x" * 60_000
    assert ctx.run(["cat"], stdin=b"x" * 5_000_000).output.count("x") == 64 * 1024
    assert ctx.run(["true"], stdin=b"x" * 5_000_000).returncode == 0
    assert ctx.run(["cat"]).output == ""


def test_it_ends_when_the_program_ends_and_leaves_a_daemon_alone(ctx, tmp_path):
    daemon = f"echo $$ > {tmp_path}/pid; exec sleep 40"
    done = []
    took = elapsed(lambda: done.append(ctx.run(shell(f"setsid sh -c '{daemon}' & echo started"))))
    assert done[0].output == "started\n"
    assert took < 5
    pid = pid_in(tmp_path / "pid")
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_without_pidfd_it_ends_all_the_same(ctx, no_pidfd):
    assert ctx.run(shell("echo a; exec >&- 2>&-; sleep 0.2; exit 3"), check=False) == (3, "a\n")


def stopped(ctx, command, after):
    """Run a program, stop it when ``after()`` is true; returns the seconds from there to its end."""
    raised, ended = [], []

    def run():
        try:
            ctx.run(command)
        except BaseException as error:
            raised.append(error)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    until(after)
    begun = time.monotonic()
    ctx.stop()
    thread.join(10)
    assert isinstance(raised[0], Canceled)
    return ended[0] - begun


def test_what_ignores_sigterm_is_killed_also_when_the_leader_has_gone(ctx, tmp_path):
    child = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
    took = stopped(ctx, shell(f'sh -c "{child}" >/dev/null 2>&1 & wait'), (tmp_path / "pid").exists)
    assert KILL_AFTER - 0.2 < took < KILL_AFTER + 2
    until(lambda: not is_alive(pid_in(tmp_path / "pid")))


def test_what_ends_at_sigterm_is_not_waited_for(ctx, tmp_path):
    took = stopped(ctx, shell(f"sleep 40 & touch {tmp_path}/here; wait"), (tmp_path / "here").exists)
    assert took < KILL_AFTER - 0.5


def test_the_agents_end_kills_without_waiting(ctx, tmp_path):
    trap = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
    thread = threading.Thread(target=lambda: ctx.run(shell(trap), check=False))
    thread.start()
    pid = pid_in(tmp_path / "pid")
    ctx.kill_programs()
    thread.join(5)
    assert not thread.is_alive()
    assert not is_alive(pid)


class Recording:
    def rebooting(self, execution_id, result):
        pass


def test_what_restarts_the_device_is_spared_at_the_agents_end(tmp_path):
    ctx = Context("e1", "a", Recording(), reboots=True)
    ctx.rebooting()
    thread = threading.Thread(
        target=lambda: ctx.run(shell(f"touch {tmp_path}/here; sleep 0.3; touch {tmp_path}/done"))
    )
    thread.start()
    until((tmp_path / "here").exists)
    ctx.kill_programs()
    thread.join(5)
    assert (tmp_path / "done").exists()


def test_the_beginning_and_the_end_of_the_output_are_kept(ctx):
    with pytest.raises(CommandFailed) as caught:
        ctx.run(shell("seq 20000; echo THE ERROR; exit 1"))
    assert caught.value.details["output"].endswith("20000\nTHE ERROR\n")
    output = ctx.run(shell("seq 20000; echo THE END")).output
    assert output.startswith("1\n2\n3\n")
    assert output.endswith("20000\nTHE END\n")
    assert "bytes left out" in output


def test_lines_come_while_it_runs(ctx):
    lines = []
    ctx.run(shell("printf 'a\\nb\\r\\nc\\r50%%\\r100%%\\n\\nlast'"), on_line=lines.append)
    assert lines == ["a", "b", "c", "50%", "100%", "last"]


def test_what_on_line_raises_stops_the_program(ctx, tmp_path):
    def refuse(line):
        raise ValueError(line)

    with pytest.raises(ValueError, match="first"):
        ctx.run(shell(f"echo $$ > {tmp_path}/pid; echo first; exec sleep 40"), on_line=refuse)
    assert not is_alive(pid_in(tmp_path / "pid"))


def test_a_line_without_an_end_comes_in_pieces():
    lines = []
    splitter = Lines(lines.append)
    for _ in range(10):
        splitter.add(b"x" * 1000)
    splitter.end()
    assert "".join(lines) == "x" * 10_000
    assert len(lines) < 6


def test_bytes_that_are_left_out_are_counted():
    output = Output()
    output.add(b"a" * HEAD_MAX)
    output.add(b"b" * 100_000)
    assert f"{100_000 - 48 * 1024} bytes left out" in output.text()


@pytest.mark.parametrize("command", [["/no/such/program"], [CAFE], ["/"]])
def test_what_cannot_be_run_says_so(ctx, command):
    with pytest.raises(CommandFailed) as caught:
        ctx.run(command)
    assert caught.value.code == "CANNOT_RUN"


def test_no_descriptor_is_left(ctx):
    ctx.run(["true"])
    before = descriptors()
    for _ in range(5):
        ctx.run(["cat"], stdin=b"x")
        with pytest.raises(CommandFailed):
            ctx.run(["/no/such/program"])
    assert descriptors() == before


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))
