"""Which things a command is for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from thingctl_broker.commands.targets import Targets, resolve
from thingctl_broker.errors import InvalidCommand
from thingctl_broker.things.registry import ThingRegistry


@pytest.fixture
def registry():
    registry = ThingRegistry()
    for name in ("lock", "lamp"):
        registry.know(name, 0.0)
    return registry


def defined(*things):
    """A registry as far as ``resolve`` looks."""
    return [
        SimpleNamespace(name=name, definition=SimpleNamespace(type=type_, tags=tags))
        for name, type_, tags in things
    ]


def test_things_by_name_each_once_in_the_order_given(registry):
    assert resolve(Targets(things=["lock", "lamp", "lock"]), registry) == ["lock", "lamp"]


def test_all(registry):
    assert resolve(Targets(all=True), registry) == ["lamp", "lock"]


def test_by_type_and_by_tags():
    things = defined(("b", "lamp", ("x", "y")), ("a", "lamp", ("y",)), ("c", "lock", ()))
    assert resolve(Targets(type="lamp"), things) == ["a", "b"]
    assert resolve(Targets(tags=["y"]), things) == ["a", "b"]
    assert resolve(Targets(tags=["y", "x"]), things) == ["b"]


@pytest.mark.parametrize(
    ("targets", "pointer"),
    [
        (Targets(), "/targets"),
        (Targets(all=False), "/targets"),
        (Targets(all=True, things=["lamp"]), "/targets"),
        (Targets(things=[]), "/targets/things"),
        (Targets(things=["lamp", "ghost"]), "/targets/things/1"),
        (Targets(tags=[]), "/targets/tags"),
        (Targets(type="ghost"), "/targets/type"),
        (Targets(tags=["ghost"]), "/targets/tags"),
    ],
)
def test_who_is_meant_by_nobody(registry, targets, pointer):
    with pytest.raises(InvalidCommand) as refused:
        resolve(targets, registry)
    assert refused.value.pointer == pointer


def test_all_of_no_things():
    with pytest.raises(InvalidCommand):
        resolve(Targets(all=True), ThingRegistry())
