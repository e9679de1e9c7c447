"""The shipped fake, and through it: runner, workers and context."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent.harness import until
from thingctl_agent import Agent, Canceled, CommandFailed, Context, RegistrationError, Reject
from thingctl_agent.handlers.programs import HEAD_MAX, TAIL_MAX
from thingctl_agent.testing import Device

agent = Agent()
released = threading.Event()


@agent.action
def add(a: int, b: int = 1) -> int:
    return a + b


@agent.action
async def add_later(a: int) -> int:
    await asyncio.sleep(0)
    return a + 1


@agent.action
def refuse() -> None:
    raise Reject("NO", "not today")


@agent.action
def fail() -> None:
    raise CommandFailed("stuck", code="JAMMED", position=3)


@agent.action(timeout=5)
def crash(kind: str) -> None:
    raise {"value": ValueError, "exit": SystemExit, "key": KeyboardInterrupt, "base": BaseException}[kind](
        "secret"
    )


@agent.action(timeout=30)
def patient(ctx: Context) -> str:
    ctx.progress(10, "waiting")
    ctx.sleep(30)
    return "never"


@agent.action(timeout=30)
def looking(ctx: Context) -> str:
    ctx.progress(message="at it")
    while not ctx.canceled:
        time.sleep(0.01)
    ctx.check()
    return "never"


@agent.action(timeout=30)
def unheeding(ctx: Context) -> str:
    ctx.progress(1)
    released.wait(10)
    return "done all the same"


@agent.action(timeout=30)
async def async_patient(ctx: Context) -> None:
    ctx.progress(1)
    await asyncio.sleep(30)


@agent.action(timeout=0.2)
async def async_endless() -> None:
    await asyncio.sleep(30)


@agent.action(timeout=30)
def program(ctx: Context, words: list[str], check: bool = True) -> dict[str, object]:
    ctx.progress(1)
    return ctx.run([sys.executable, "-c", *words], check=check)._asdict()


@agent.action
def about(ctx: Context) -> dict[str, object]:
    ctx.log.debug("hello")
    return {"id": ctx.execution_id, "action": ctx.action, "attempt": ctx.attempt, "remaining": ctx.remaining}


@agent.action
def wrong_percent(ctx: Context) -> None:
    ctx.progress(101)


@agent.action
def swallowing(ctx: Context) -> str:
    ctx.progress(1)
    try:
        ctx.sleep(30)
    except Exception:  # Canceled is none
        return "swallowed"
    return "never"


@pytest.fixture
def device():
    with Device(agent) as made:
        yield made


def test_an_action_is_called_through_json(device):
    reply = device.send("add", a=2, b=3)
    assert (reply.status, reply.result, reply.reason_code) == ("SUCCEEDED", 5, "")
    assert agent.test("add_later", a=1).result == 2
    assert device.send("add", a="x").reason_code == "INVALID_PARAMS"
    assert device.send("add", ttl=60, wait=1, c=1).status == "REJECTED"


def test_verdicts(device):
    assert (device.send("refuse").status, device.send("refuse").reason) == ("REJECTED", "not today")
    reply = device.send("fail")
    assert (reply.status, reply.reason_code, reply.result) == ("FAILED", "JAMMED", {"position": 3})


@pytest.mark.parametrize("kind", ["value", "exit", "key", "base"])
def test_any_other_exception_is_masked_and_kept(device, kind):
    reply = device.send("crash", kind=kind)
    assert (reply.status, reply.reason_code) == ("FAILED", "HANDLER_ERROR")
    assert "secret" not in repr(reply.responses)
    assert "secret" in str(device.errors[0])


@pytest.mark.parametrize("action", ["patient", "looking", "async_patient", "swallowing"])
def test_a_cancel_reaches_the_handler(device, action):
    execution_id = device.start(action)
    device.wait_for_progress(execution_id)
    device.cancel(execution_id)
    assert device.wait(execution_id, 5).status == "CANCELED"


def test_a_handler_that_does_not_look_has_the_last_word(device):
    released.clear()
    execution_id = device.start("unheeding")
    device.wait_for_progress(execution_id)
    device.cancel(execution_id)
    released.set()
    assert device.wait(execution_id, 5).result == "done all the same"


def test_an_async_handler_is_cancelled_when_its_time_is_up(device):
    assert device.send("async_endless").reason_code == "TIMEOUT"


def test_a_task_cancelled_before_it_began_is_canceled():
    with Device(agent) as device:
        first = device.start("async_patient")
        device.cancel(first)
        assert device.wait(first, 5).status == "CANCELED"


def test_progress_is_reported(device):
    execution_id = device.start("patient")
    reply = device.wait_for_progress(execution_id)
    assert reply.status == "IN_PROGRESS"
    assert reply.progress == [{"percent": 10, "message": "waiting"}]
    assert device.send("wrong_percent").reason_code == "HANDLER_ERROR"


def test_a_program_is_run(device):
    assert device.send("program", words=["print('hi')"]).result == {"returncode": 0, "output": "hi\n"}
    reply = device.send("program", words=["import sys; print('bad'); sys.exit(3)"])
    assert (reply.reason_code, reply.result) == ("EXIT_STATUS", {"returncode": 3, "output": "bad\n"})
    assert device.send("program", words=["import sys; sys.exit(3)"], check=False).result["returncode"] == 3
    reply = device.send("program", words=["print('x' * 10_000_000)"])
    assert reply.result["output"].count("x") == HEAD_MAX + TAIL_MAX - 1


def test_a_program_and_its_children_end_with_the_execution(device, tmp_path):
    child = f"import time,os; open({str(tmp_path / 'pid')!r},'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess,sys; subprocess.run([sys.executable,'-c',{child!r}])"
    execution_id = device.start("program", {"words": [parent]})
    pid = until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    device.cancel(execution_id)
    assert device.wait(execution_id, 8).status == "CANCELED"
    until(lambda: not _runs(int(pid)), what="the child's end")


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def test_a_program_that_ignores_sigterm_is_killed(device):
    stubborn = (
        "import signal,time,sys; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    )
    execution_id = device.start("program", {"words": [stubborn]})
    device.wait_for_progress(execution_id)
    time.sleep(0.3)  # until it ignores the signal; a quicker kill would show less, not fail
    device.cancel(execution_id)
    assert device.wait(execution_id, 8).status == "CANCELED"


def test_the_context_knows_its_execution(device):
    execution_id = device.start("about", ttl=30)
    result = device.wait(execution_id).result
    assert result["id"] == execution_id
    assert (result["action"], result["attempt"]) == ("about", 1)
    assert 29 < result["remaining"] <= 30


def test_a_request_can_be_repeated_and_malformed(device):
    execution_id = device.start("add", {"a": 1})
    device.wait(execution_id)
    device.deliver(execution_id, b"whatever")
    assert [r["result"] for r in device.reply(execution_id).responses] == [2, 2]
    device.deliver("x", b"nonsense")
    assert device.reply("x").reason_code == "INVALID_REQUEST"


def test_age_and_patience(device):
    assert device.wait(device.start("add", {"a": 1}, ttl=10, age=11)).reason_code == "EXPIRED"
    with pytest.raises(TimeoutError, match="no end"):
        device.wait("never-sent", 0.05)
    with pytest.raises(TimeoutError, match="not a word"):
        device.wait_for_progress("never-sent", 0.05)


def test_run_refuses_a_string_and_a_program_that_is_not_there():
    context = Context("e", "a", Device(agent))
    with pytest.raises(TypeError, match="a list"):
        context.run("ls -l")
    with pytest.raises(CommandFailed, match="cannot be run"):
        context.run(["/no/such/program"])
    context.stop()
    with pytest.raises(Canceled):
        context.run(["true"])


def test_what_a_handler_keeps_is_recorded(device):
    keeping = Agent()

    @keeping.action(on_restart="resume")
    def step(ctx: Context) -> object:
        ctx.save({"step": 2})
        return ctx.saved

    with Device(keeping) as one:
        assert one.send("step").status == "SUCCEEDED"
        assert any(getattr(r, "value", b"") == b'{"step":2}' for r in one.records)


# -- restarts

lives = Agent()


@lives.action(reboots=True)
def update(ctx: Context, intend: bool = True, then: str = "wait") -> str:
    if intend:
        ctx.rebooting("2.0")
    if then == "fail":
        raise CommandFailed("no", code="NO")
    if then == "wait":
        ctx.progress(50)
        ctx.sleep(30)
    return "ended"


@lives.action(on_restart="resume")
def steps(ctx: Context) -> list[Any]:
    if ctx.attempt == 1:
        ctx.save([1, 2])
        ctx.progress(50)
        ctx.sleep(30)
    return [ctx.attempt, ctx.saved]


@lives.action
def not_for_restarts(ctx: Context) -> None:
    ctx.rebooting()


@lives.action
def big(ctx: Context, size: int) -> None:
    ctx.save("x" * size)


def test_a_recorded_restart_succeeds_with_its_result():
    with Device(lives) as device:
        execution_id = device.start("update")
        device.wait_for_reboot(execution_id)
        device.reboot()
        reply = device.wait(execution_id)
        assert (reply.status, reply.result) == ("SUCCEEDED", "2.0")


def test_a_restart_by_another_hand_is_interrupted():
    with Device(lives) as device:
        execution_id = device.start("update", intend=False)
        device.wait_for_progress(execution_id)
        device.reboot()
        assert device.wait(execution_id).reason_code == "INTERRUPTED"


def test_a_restart_of_the_agent_alone_is_no_reboot():
    with Device(lives) as device:
        execution_id = device.start("update")
        device.wait_for_reboot(execution_id)
        device.restart()
        assert device.wait(execution_id).reason_code == "NOT_REBOOTED"


def test_a_send_that_waits_for_a_restart_says_so():
    with Device(lives) as device:
        with pytest.raises(TimeoutError, match=r"call device\.reboot"):
            device.send("update", then="return")
        with pytest.raises(TimeoutError, match="no restart"):
            device.wait_for_reboot(device.start("steps"), 0.1)


def test_a_handler_that_fails_after_its_record_has_failed():
    with Device(lives) as device:
        assert device.send("update", then="fail").reason_code == "NO"


def test_a_handler_resumes_after_a_restart():
    with Device(lives) as device:
        execution_id = device.start("steps")
        device.wait_for_progress(execution_id)
        device.restart()
        assert device.wait(execution_id).result == [2, [1, 2]]


def test_rebooting_is_for_what_reboots():
    with Device(lives) as device:
        assert device.send("not_for_restarts").reason_code == "HANDLER_ERROR"
        assert "reboots=True" in str(device.errors[0])


def test_params_are_given_by_name_or_as_a_dict(device):
    assert device.send("add", {"a": 1, "b": 2}).result == device.send("add", a=1, b=2).result
    assert device.wait(device.start("add", a=1, b=2)).result == device.send("add", {"a": 1}, b=2).result


# -- bounds


@pytest.mark.parametrize(
    "report", [(50, 123), (50, b"x"), ("50",), (True,), (Decimal(50),), (float("nan"),), (101,)]
)
def test_progress_of_a_wrong_type_raises_in_the_handlers_line(report):
    context = Context("e1", "a", None)
    with pytest.raises((TypeError, ValueError)):
        context.progress(*report)


def test_a_value_to_keep_is_bounded_and_json():
    with Device(lives) as device:
        assert device.send("big", size=60_000).status == "SUCCEEDED"
        assert device.send("big", size=70_000).reason_code == "HANDLER_ERROR"
        assert "65536 bytes" in str(device.errors[-1])
    with pytest.raises(TypeError, match=r"object at \$\.a"):
        Context("e1", "a", None).save({"a": object()})


# -- start and stop


def test_hooks_run_at_start_and_in_reverse_at_the_end():
    hooked, heard = Agent(), []

    @hooked.on_start
    async def up() -> None:
        await asyncio.sleep(0)
        heard.append("up")

    @hooked.on_start
    def broken() -> None:
        raise SystemExit(3)

    hooked.on_stop(lambda: heard.append("first"))
    hooked.on_stop(lambda: heard.append("last"))

    @hooked.action
    def nop() -> None:
        heard.append("nop")

    with Device(hooked) as device:
        device.send("nop")
        assert isinstance(device.errors[0], SystemExit)
    assert heard == ["up", "nop", "last", "first"]


def test_a_hook_without_an_end_does_not_hold_the_agent(monkeypatch):
    monkeypatch.setattr("thingctl_agent.testing.HOOK_WITHIN", 0.05)
    hooked, ended = Agent(), threading.Event()
    hooked.on_start(ended.wait)
    with Device(hooked) as device:
        assert isinstance(device.errors[0], TimeoutError)
    ended.set()


@pytest.mark.parametrize("function", [lambda a: a, lambda: (yield)])
def test_a_hook_that_cannot_be_called_is_refused(function):
    with pytest.raises(RegistrationError, match="agent's stop"):
        Agent().on_stop(function)
