"""Which commands are accepted at all: by their own form, and by the thing that they are for.

Pure. The same for every way in which executions are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from thingctl_broker.errors import InvalidCommand, ThingDisabled, UnknownThing
from thingctl_broker.things.param_schemas import ParamSchemas
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import check_action_name, check_thing_name
from thingctl_protocol.limits import TTL_DEFAULT, TTL_MAX, TTL_MIN
from thingctl_protocol.messages import check_json_object, encode_request

if TYPE_CHECKING:
    from thingctl_broker.things.param_schemas import ParamsCheck
    from thingctl_broker.things.registry import ThingRegistry

_LONGEST_ID = "-" * 36
_LATE = 2**33  # the year 2242


class ServiceSettings(msgspec.Struct, frozen=True):
    """Times in seconds."""

    ttl_default: int = TTL_DEFAULT
    ttl_max: int = TTL_MAX
    cancel_grace: float = 10.0
    """How long a device may take over its verdict on a cancel."""


class ValidRequest:
    """Checks commands against ``settings`` and the things that are known."""

    def __init__(self, settings: ServiceSettings, things: ThingRegistry) -> None:
        self.settings = settings
        self.things = things
        self._schemas = ParamSchemas(things)

    def ttl(self, asked: int | None) -> int:
        """Seconds that a command lives; raises :class:`InvalidCommand`."""
        settings = self.settings
        ttl = settings.ttl_default if asked is None else asked
        if not TTL_MIN <= ttl <= settings.ttl_max:
            raise InvalidCommand(f"ttl must be from {TTL_MIN} to {settings.ttl_max} seconds", "/ttl")
        return ttl

    def form(self, action: str, params: bytes, ttl: int | None) -> None:
        """Raise :class:`InvalidCommand` for what no thing could be sent."""
        ttl = self.ttl(ttl)
        try:
            check_action_name(action, "/action")
            check_json_object(params, "/params")
            encode_request(command_id=_LONGEST_ID, action=action, params=params, timestamp=_LATE, ttl=ttl)
        except ProtocolError as error:
            raise InvalidCommand(error.text, error.pointer) from None

    def whole(self, thing: str, action: str, params: bytes, ttl: int | None) -> tuple[ParamsCheck, ...]:
        """Check everything; return what the params were checked by.

        Raises :class:`InvalidCommand`, :class:`UnknownThing`, :class:`ThingDisabled`.
        """
        try:
            check_thing_name(thing, "/thingId")
        except ProtocolError as error:
            raise InvalidCommand(error.text, error.pointer) from None
        self.form(action, params, ttl)
        return self.target(thing, action, params)

    def target(self, name: str, action: str, params: bytes) -> tuple[ParamsCheck, ...]:
        """Whether the thing is one that takes this command; return what the params were checked by.

        Raises :class:`InvalidCommand`, :class:`UnknownThing`, :class:`ThingDisabled`.
        """
        thing = self.things.get(name)
        if thing is None:
            raise UnknownThing(f"no thing is named {name!r}")
        definition = thing.definition
        if not definition.enabled:
            raise ThingDisabled(f"the thing {name!r} is disabled: it takes no commands")
        if thing.announcement is None and not definition.type:
            return ()  # nobody has said what its params are
        return self._schemas.check(thing, action, params)
