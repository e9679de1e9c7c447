"""Params against JSON Schema (2020-12), before anything is sent.

A thing's params must meet the schema of its type and the one that it announced, where there
are any. Compiled once for each distinct schema, however many things share it.

jsonschema-rs does the work: a validation takes a third of a microsecond to a few, patterns
run in time linear to the text (no look-around, no back-reference), and it fetches nothing:
references to elsewhere are refused before it sees them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jsonschema_rs
import msgspec

from thingctl_broker.errors import InvalidCommand
from thingctl_broker.things.schema_limits import SchemaFault, check_bounds
from thingctl_protocol.json_pointer import to_pointer

if TYPE_CHECKING:
    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.thing import Thing, ThingType
    from thingctl_protocol.messages import ActionDescription

SCHEMA_BYTES_MAX: Final = 64 * 1024
"""Bytes of one encoded schema."""

COMPILED_MAX: Final = 4096
"""Compiled schemas kept for the next thing that has the same."""

REMEMBERED_MAX: Final = 512
"""Actions of one thing whose checks are remembered: a caller may ask for any name."""

_TEXT_MAX: Final = 300
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1_000_000)


class Fault(NamedTuple):
    """What is wrong with params. ``pointer``: from the params on; empty: the params as a whole."""

    text: str
    pointer: str


class ParamsCheck:
    """One compiled schema. ``source``: whose it is, in words."""

    __slots__ = ("_validator", "source")

    def __init__(self, validator: jsonschema_rs.Draft202012Validator, source: str) -> None:
        self._validator = validator
        self.source = source

    def fault(self, params: Any) -> Fault | None:
        """The first fault of decoded params; None: they are right."""
        if self._validator.is_valid(params):
            return None
        error = next(self._validator.iter_errors(params))
        place = to_pointer(error.instance_path)
        text = error.message if len(error.message) <= _TEXT_MAX else error.message[:_TEXT_MAX] + "…"
        return Fault(text, place)


class ParamSchemas:
    """What each thing's params must meet."""

    def __init__(self, registry: ThingRegistry) -> None:
        self._registry = registry
        self._compiled: OrderedDict[bytes, jsonschema_rs.Draft202012Validator | None] = OrderedDict()

    def check(self, thing: Thing, action: str, params: bytes) -> tuple[ParamsCheck, ...]:
        """Return what the params (encoded JSON) have been checked against; maybe nothing.

        Raises :class:`InvalidCommand`, with a pointer under ``/params``, when they are wrong,
        and with ``/action`` when the thing's type and announcement know no such action.
        """
        checks: tuple[ParamsCheck, ...] | None = thing.checks.get(action)
        if checks is None:
            if len(thing.checks) >= REMEMBERED_MAX:
                thing.checks.clear()
            checks = thing.checks[action] = self._find(thing, action)
        if checks:
            decoded = msgspec.json.decode(params)
            for check in checks:
                fault = check.fault(decoded)
                if fault is not None:
                    raise InvalidCommand(f"{check.source}: {fault.text}", f"/params{fault.pointer}")
        return checks

    def _find(self, thing: Thing, action: str) -> tuple[ParamsCheck, ...]:
        thing_type = self._registry.type_of(thing)
        announcement = thing.announcement
        by_type = None if thing_type is None else thing_type.action(action)
        announced = (
            None
            if announcement is None
            else next((a for a in announcement.actions if a.name == action), None)
        )
        if thing_type is not None and by_type is None and announced is None:
            raise InvalidCommand(
                f"neither the type {thing_type.name!r} nor the thing itself has an action {action!r}",
                "/action",
            )
        found = (
            (by_type, "by its type" if thing_type is None else f"by the type {thing_type.name!r}"),
            (announced, "by what the thing announced"),
        )
        return tuple(
            ParamsCheck(validator, source)
            for description, source in found
            if description is not None and (validator := self._validator(description)) is not None
        )

    def _validator(self, action: ActionDescription) -> jsonschema_rs.Draft202012Validator | None:
        """The compiled params schema; None: there is none, or one that is not enforced."""
        if action.params_schema is None:
            return None
        try:
            encoded = _encode(action.params_schema)
            if encoded in self._compiled:
                self._compiled.move_to_end(encoded)
                return self._compiled[encoded]
            validator = _compile(action.params_schema)
        except SchemaFault:
            # A device's own business: it checks its params itself. The API shows the fault.
            return None
        self._compiled[encoded] = validator
        if len(self._compiled) > COMPILED_MAX:
            self._compiled.popitem(last=False)
        return validator


def check_schema(schema: Any) -> None:
    """Raise :class:`SchemaFault` unless ``schema`` is one that is enforced."""
    _encode(schema)
    _compile(schema)


def check_type(thing_type: ThingType) -> None:
    """Raise :class:`SchemaFault`, its pointer from the type on, for the first schema that is wrong."""
    for i, action in enumerate(thing_type.actions):
        for field, schema in (("paramsSchema", action.params_schema), ("resultSchema", action.result_schema)):
            if schema is not None:
                try:
                    check_schema(schema)
                except SchemaFault as fault:
                    raise SchemaFault(fault.text, f"/actions/{i}/{field}{fault.pointer}") from None


def _encode(schema: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(schema, order="sorted")
    except (RecursionError, msgspec.EncodeError, TypeError, ValueError) as error:
        raise SchemaFault(f"not a schema: {error}") from None
    if len(encoded) > SCHEMA_BYTES_MAX:
        raise SchemaFault(f"a schema of {len(encoded)} bytes; at most {SCHEMA_BYTES_MAX} are taken")
    return encoded


def _compile(schema: Any) -> jsonschema_rs.Draft202012Validator:
    check_bounds(schema)
    try:
        return jsonschema_rs.Draft202012Validator(schema, pattern_options=_PATTERNS, retriever=_fetch_nothing)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        place = to_pointer(getattr(error, "instance_path", []))
        text = getattr(error, "message", str(error))
        raise SchemaFault(text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "…", place) from None


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched")
