"""Whatever a handler does, its call ends with a verdict and its place is free again."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import time

import msgspec
import pytest

from thingctl_agent import Agent, CommandFailed, Context, RegistrationError, Reject
from thingctl_agent.testing import Device

agent = Agent()
CAFE = os.fsdecode(b"caf\xe9")


class DoorOpen(Reject):
    def __init__(self, door):
        self.door = door


class Jammed(CommandFailed):
    def __init__(self, bolt):
        self.bolt = bolt


class Unspeakable(Reject):
    def __init__(self): ...

    @property
    def code(self):
        raise SystemExit(3)


@agent.action
def ok() -> int:
    return 1


@agent.action
async def aok() -> int:
    await asyncio.sleep(0)
    return 1


@agent.action
def plain_reject() -> None:
    raise DoorOpen("front")


@agent.action
def plain_failed() -> None:
    raise Jammed(3)


@agent.action
async def unspeakable() -> None:
    raise Unspeakable


@agent.action
def surrogate() -> None:
    raise CommandFailed("cannot read " + CAFE)


@agent.action
async def unformattable() -> None:
    error = SyntaxError("x")
    error.text = 5
    raise error


@agent.action
async def exits_in_a_task() -> None:
    async def sub() -> None:
        sys.exit(1)

    await asyncio.create_task(sub())


@agent.action
async def exits_in_a_group() -> None:
    async def sub() -> None:
        sys.exit(1)

    async with asyncio.TaskGroup() as group:
        group.create_task(sub())


@agent.action
async def exits_later() -> str:
    asyncio.get_running_loop().call_later(0.01, sys.exit, 1)
    await asyncio.sleep(0.05)
    return "went on"


@agent.action
async def stops_the_loop() -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "went on"


@agent.action
async def cancels_itself() -> int:
    asyncio.current_task().cancel()
    return 1


@agent.action
async def bad_factory() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda *_: None)
    loop.call_later(0.3, loop.set_task_factory, None)


def logged(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


@agent.action
@logged
async def wrapped() -> str:
    await asyncio.sleep(0)
    return "ran"


@agent.action
@logged
async def wrapped_waits(ctx: Context) -> None:
    ctx.progress(1)
    await asyncio.sleep(60)


@agent.action
def gives_a_coroutine() -> object:
    async def inner() -> str:
        return "ran"

    return inner()


@agent.action
async def gives_a_task() -> object:
    async def inner() -> str:
        return "ran"

    return asyncio.create_task(inner())


@agent.action
def gives_a_generator() -> object:
    return (n for n in range(3))


@agent.action
def raw() -> object:
    return msgspec.Raw(b'1,"status":"REJECTED"')


@agent.action
def good_raw() -> object:
    return {"a": msgspec.Raw(b"[1]")}


@agent.action
def bad_details() -> None:
    raise CommandFailed("no", code="NO", what=object())


@pytest.fixture
def device():
    with Device(agent) as device:
        yield device


def verdict(reply):
    return f"{reply.status} {reply.reason_code}".strip()


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("plain_reject", "REJECTED REJECTED"),
        ("plain_failed", "FAILED FAILED"),
        ("unspeakable", "FAILED HANDLER_ERROR"),
        ("surrogate", "FAILED FAILED"),
        ("unformattable", "FAILED HANDLER_ERROR"),
        ("exits_in_a_task", "FAILED HANDLER_ERROR"),
        ("exits_in_a_group", "FAILED HANDLER_ERROR"),
        ("exits_later", "SUCCEEDED"),
        ("stops_the_loop", "SUCCEEDED"),
        ("cancels_itself", "SUCCEEDED"),
        ("wrapped", "SUCCEEDED"),
        ("gives_a_coroutine", "SUCCEEDED"),
        ("gives_a_task", "SUCCEEDED"),
        ("gives_a_generator", "FAILED RESULT_NOT_JSON"),
        ("raw", "FAILED RESULT_NOT_JSON"),
        ("good_raw", "SUCCEEDED"),
        ("bad_details", "FAILED NO"),
    ],
)
def test_the_call_ends_and_its_place_is_free(device, action, expected):
    for _ in range(2):
        assert verdict(device.send(action, wait=5)) == expected
    assert device.send("ok").result == 1
    assert device.send("aok", wait=5).result == 1


def test_a_wrapped_coroutine_gives_its_result(device):
    assert device.send("wrapped").result == "ran"
    assert device.send("gives_a_coroutine").result == "ran"
    assert device.send("gives_a_task").result == "ran"


def test_a_wrapped_coroutine_is_cancelled(device):
    execution_id = device.start("wrapped_waits")
    device.wait_for_progress(execution_id)
    device.cancel(execution_id)
    assert device.wait(execution_id).status == "CANCELED"


def test_a_task_factory_of_a_handler_costs_only_the_calls_of_its_time(device):
    device.send("bad_factory")
    assert verdict(device.send("aok", wait=5)) == "FAILED HANDLER_ERROR"
    deadline = time.monotonic() + 5
    while device.send("aok", wait=5).status != "SUCCEEDED":
        assert time.monotonic() < deadline


@pytest.mark.parametrize("action", ["ok", "aok"])
def test_without_a_thread_a_call_is_refused_and_the_next_one_runs(monkeypatch, action):
    with Device(agent) as device:
        with monkeypatch.context() as patch:

            def start(_):
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", start)
            reply = device.send(action)
            assert verdict(reply) == "REJECTED BUSY"
            assert "can't start new thread" in reply.reason
        assert device.send(action).result == 1


def test_the_reason_names_type_and_path(device):
    assert "a generator, which has not run" in device.send("gives_a_generator").reason
    assert "object at $.what" in device.send("bad_details").reason


async def agen():
    yield 1


def gen():
    yield 1


@pytest.mark.parametrize("function", [gen, agen])
def test_a_generator_is_refused_at_registration(function):
    with pytest.raises(RegistrationError, match="gen: a generator cannot be a handler"):
        Agent().action(function)


def test_a_star_parameter_is_refused_by_the_functions_name():
    def many(*values: int) -> None: ...

    with pytest.raises(RegistrationError, match=r"^many: params have names"):
        Agent().action(many)


def test_an_integer_may_be_written_as_1_point_0():
    one = Agent()

    @one.action
    def opt(y: int, z: list[int] | None = None, s: str = "") -> list:
        return [y, z, s]

    with Device(one) as device:
        assert device.send("opt", y=1.0, z=[2.0], s="3.0").result == [1, [2], "3.0"]
        reply = device.send("opt", y=1.5)
        assert verdict(reply) == "REJECTED INVALID_PARAMS"
        assert reply.reason == "Expected `int`, got `float` at /y"
