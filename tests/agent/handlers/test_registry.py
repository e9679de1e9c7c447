"""What can be an action, and what its params may be."""

from __future__ import annotations

from typing import Annotated, TypedDict

import msgspec
import pytest

from thingctl_agent import Agent
from thingctl_agent.errors import RegistrationError
from thingctl_agent.handlers.context import Context
from thingctl_agent.handlers.registry import InvalidParamsError, Registry


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Reading(TypedDict):
    celsius: float


def move(to: Point, ctx: Context, speed: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0) -> Reading:
    """Move there.

    Slowly.
    """


@pytest.fixture
def action():
    return Registry().add(move)


def test_params_become_keyword_arguments(action):
    context = object()
    arguments = action.arguments(action.decode(b'{"to":{"x":1}}'), context)
    assert arguments == {"to": Point(1, 0), "ctx": context, "speed": 1.0}


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        (b"{}", ""),
        (b'{"to":{"x":"1"}}', "/to/x"),
        (b'{"to":{"x":1},"speed":11}', "/speed"),
        (b'{"to":{"x":1},"other":1}', ""),
        (b'{"to":{"x":1},"ctx":1}', ""),
        (b"nonsense", ""),
        (b'"\xff"', ""),
    ],
)
def test_params_that_do_not_fit_are_refused_with_a_pointer(action, params, pointer):
    with pytest.raises(InvalidParamsError) as caught:
        action.decode(params)
    assert caught.value.pointer == pointer


def test_it_is_described_in_json_schema(action):
    description = action.description
    assert description.name == "move"
    assert description.description == "Move there.\n\nSlowly."
    assert description.params_schema["additionalProperties"] is False
    assert description.params_schema["required"] == ["to"]
    assert description.params_schema["properties"]["speed"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 10,
        "default": 1.0,
    }
    assert description.params_schema["$defs"]["Point"]["properties"]["x"] == {"type": "integer"}
    assert description.result_schema["$defs"]["Reading"]["required"] == ["celsius"]


def unhinted(value): ...


def positional(value: int, /) -> None: ...


def starred(*values: int) -> None: ...


def double_starred(**values: int) -> None: ...


def two_contexts(a: Context, b: Context) -> None: ...


def unknown_hint(value: Missing) -> None: ...  # noqa: F821


def strange_type(value: Registry) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (unhinted, "'value' has no type hint"),
        (positional, "positional-only"),
        (starred, "no \\*parameter"),
        (double_starred, "no \\*parameter"),
        (two_contexts, "one parameter of type Context"),
        (unknown_hint, "its signature cannot be read"),
        (strange_type, "its params cannot be validated"),
        (print, "its signature cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_at_registration(function, text):
    with pytest.raises(RegistrationError, match=text):
        Registry().add(function)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "with space"}, "can't name an action"),
        ({"timeout": 0}, "above 0"),
        ({"max_age": -1}, "above 0"),
        ({"concurrency": 0}, "at least 1"),
        ({"rate": "often"}, "is no rate"),
        ({"stale": "maybe"}, "Invalid enum value"),
        ({"retries": 3}, "no such option: retries"),
        ({"reboots": True, "durable": False}, "must be durable"),
        ({"reboots": True, "on_restart": "rerun"}, "never begun again"),
        ({"durable": False, "on_restart": "rerun"}, "needs a durable action"),
    ],
)
def test_options_out_of_bounds_are_refused(options, text):
    with pytest.raises(RegistrationError, match=text):
        Registry().add(lambda: None, **{"name": "a", **options})


def strange_result() -> Registry: ...


def loose_result() -> dict[str, object]: ...


@pytest.mark.parametrize("function", [strange_result, loose_result, lambda: None])
def test_a_result_that_cannot_be_described_has_no_schema(function):
    assert Registry().add(function, "a").description.result_schema is None


def test_a_name_is_taken_once():
    registry = Registry()
    registry.add(move)
    with pytest.raises(RegistrationError, match="there is an action named 'move' already"):
        registry.add(lambda: None, "move")
    other = Registry()
    other.add(move)
    with pytest.raises(RegistrationError, match="already"):
        registry.extend(other)


class Lamp:
    def switch(self, on: bool) -> bool:
        return on


def test_the_method_of_an_object_can_be_an_action():
    action = Registry().add(Lamp().switch)
    assert action.function(**action.arguments(action.decode(b'{"on":true}'), None)) is True
    with pytest.raises(RegistrationError, match="register the method of an object"):
        Registry().add(Lamp.switch)


async def asynchronous(seconds: float = 1) -> None: ...


def test_async_functions_are_told_apart():
    assert Registry().add(asynchronous).is_async
    assert not Registry().add(move).is_async


def test_two_files_may_share_one_agent():
    shared, all_ = Agent(), Agent()
    shared.action(name="nop")(lambda: None)
    shared.on_stop(print)
    all_.registry.extend(shared.registry)
    all_.registry.extend(shared.registry)
    assert len(all_.registry) == 1
    assert all_.registry.hooks("stop") == [print]
