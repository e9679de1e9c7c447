"""Where a thing's announcement differs from its type."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_broker.things.schema_limits import DEFINITIONS, LISTS, MAPS, ONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_broker.things.thing import ThingType
    from thingctl_protocol.messages import Announcement

_ANNOTATIONS: Final = frozenset(
    {
        "$comment",
        "$schema",
        "default",
        "deprecated",
        "description",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)
"""Keywords that no value is refused for."""


class Difference(StrEnum):
    """In which way an action differs."""

    NOT_ANNOUNCED = "notAnnounced"
    """The type has the action, the thing did not announce it."""

    NOT_IN_TYPE = "notInType"
    """The thing announced the action, its type has none of that name."""

    PARAMS = "params"
    """The two have different schemas for its params."""

    RESULT = "result"
    """The two have different schemas for its result."""


class Drift(msgspec.Struct, frozen=True):
    """One difference between type and announcement."""

    action: str
    difference: Difference


def find_drift(thing_type: ThingType, announcement: Announcement) -> list[Drift]:
    """What differs, by the actions' names. Descriptions, titles and defaults do not count."""
    return sorted(_differences(thing_type, announcement), key=lambda drift: (drift.action, drift.difference))


def _differences(thing_type: ThingType, announcement: Announcement) -> Iterator[Drift]:
    announced = {action.name: action for action in announcement.actions}
    for action in thing_type.actions:
        theirs = announced.pop(action.name, None)
        if theirs is None:
            yield Drift(action.name, Difference.NOT_ANNOUNCED)
            continue
        if _differ(action.params_schema, theirs.params_schema):
            yield Drift(action.name, Difference.PARAMS)
        if _differ(action.result_schema, theirs.result_schema):
            yield Drift(action.name, Difference.RESULT)
    for name in announced:
        yield Drift(name, Difference.NOT_IN_TYPE)


def _differ(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return False  # who says nothing contradicts nothing
    try:
        return bool(_bare(one) != _bare(other))
    except RecursionError:
        return True


def _bare(schema: Any) -> Any:
    """The schema without annotations: only what decides about a value."""
    if not isinstance(schema, dict):
        return schema
    return {
        keyword: _bare_value(keyword, value)
        for keyword, value in schema.items()
        if keyword not in _ANNOTATIONS
    }


def _bare_value(keyword: str, value: Any) -> Any:
    if keyword in ONE:
        return _bare(value)
    if keyword in LISTS and isinstance(value, list):
        return [_bare(item) for item in value]
    if keyword in MAPS | DEFINITIONS and isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items()}
    if keyword == "required" and isinstance(value, list):
        return sorted(value, key=repr)
    return value
