"""Things and thing types: what the broker knows of one, and what can be said of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec

from thingctl_broker.errors import InvalidThing
from thingctl_protocol.identifiers import THING_PATTERN, is_thing_name
from thingctl_protocol.messages import ActionDescription, Announcement  # noqa: TC001 msgspec reads them

if TYPE_CHECKING:
    from collections.abc import Callable

TAG_MAX: Final = 64
"""Characters of a tag."""

TAGS_MAX: Final = 32
"""Tags of one thing."""

DESCRIPTION_MAX: Final = 1024
"""Characters of a description."""

TYPE_ACTIONS_MAX: Final = 256
"""Actions of one thing type."""

_TAG: Final = re.compile(rf"[A-Za-z0-9:_.=/-]{{1,{TAG_MAX}}}")

TAG_PATTERN: Final = _TAG.pattern
"""Regular expression of a whole tag, without anchors."""

_DESCRIPTION: Final = re.compile(
    r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]{0,%d}" % DESCRIPTION_MAX  # noqa: UP031 of braces
)
"""No control characters, line breaks or changes of the direction of writing."""

ThingName = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{THING_PATTERN}$"})]
TypeName = ThingName
Tag = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{TAG_PATTERN}$"})]
Description = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{_DESCRIPTION.pattern}$"})]
"""Types of fields that tell an API description what the checks below take. Decoding takes any string."""


class Definition(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operator says of a thing."""

    type: str = ""
    """The name of its thing type; empty: it has none."""
    tags: tuple[str, ...] = ()
    description: str = ""
    enabled: bool = True
    """Whether it may connect, and be sent commands."""


class Thing(msgspec.Struct):
    """A device as the broker knows it."""

    name: str
    first_seen: float
    """When it became known."""
    last_seen: float | None = None
    """When it last connected, went, or said something; None: never yet."""
    online: bool = False
    since: float | None = None
    """Since when it is online, or offline; None: it has never been online."""
    client_id: str = ""
    """The MQTT client id it last connected with."""
    takeovers: int = 0
    """How often, since the broker started, a client took the session from another connection."""
    announcement: Announcement | None = None
    """What its agent can do, if it said so."""
    definition: Definition = Definition()
    password_hash: str = ""
    """What its password is verified against (argon2); empty: it has none."""
    previous_hash: str = ""
    """The same of the password before it, as long as that stays valid; empty: there is none."""
    previous_until: float | None = None
    """Until when (Unix seconds) at the latest; None: until the device signs in with the new one."""
    checks: dict[str, tuple[Any, ...]] = {}
    """For each action asked for so far, what its params must meet. Made anew when a schema changes."""

    @property
    def enabled(self) -> bool:
        """Whether it may connect, and be sent commands."""
        return self.definition.enabled

    def hashes(self, at: float) -> tuple[str, ...]:
        """What a password is verified against at that time (Unix seconds): the new one, then the old one."""
        found = (self.password_hash,) if self.password_hash else ()
        is_over = self.previous_until is not None and at >= self.previous_until
        return found if is_over or not self.previous_hash else (*found, self.previous_hash)


class ThingType(msgspec.Struct, frozen=True):
    """Actions that many things share, with JSON Schemas for params and result."""

    name: str
    description: str = ""
    actions: tuple[ActionDescription, ...] = ()

    def action(self, name: str) -> ActionDescription | None:
        """The action with that name."""
        return next((action for action in self.actions if action.name == name), None)


class ThingQuery(NamedTuple):
    """Which things to list. ``tags``: all of them. None: any."""

    tags: tuple[str, ...] = ()
    type: str | None = None
    online: bool | None = None
    visible: Callable[[str], bool] | None = None
    """Whether the caller may see the thing of that name."""

    def admits(self, thing: Thing) -> bool:
        """Whether the thing is asked for."""
        definition = thing.definition
        return (
            (self.online is None or thing.online == self.online)
            and (self.type is None or definition.type == self.type)
            and all(tag in definition.tags for tag in self.tags)
            and (self.visible is None or self.visible(thing.name))
        )


def is_tag(text: str) -> bool:
    """Whether ``text`` can be a tag: ``[A-Za-z0-9:_.=/-]{1,64}``."""
    return _TAG.fullmatch(text) is not None


def is_type_name(text: str) -> bool:
    """Whether ``text`` can name a thing type: the same as for a thing."""
    return is_thing_name(text)


def checked_definition(definition: Definition) -> Definition:
    """The definition with its tags in order, each once; whether there is such a type is not looked at.

    Raises :class:`InvalidThing` when a tag or the description cannot be.
    """
    if len(definition.tags) > TAGS_MAX:
        raise InvalidThing(f"a thing has at most {TAGS_MAX} tags", "/tags")
    for i, tag in enumerate(definition.tags):
        if not is_tag(tag):
            raise InvalidThing(
                f"a tag is 1 to {TAG_MAX} of the characters A-Z a-z 0-9 : _ . = / -", f"/tags/{i}"
            )
    check_description(definition.description)
    return msgspec.structs.replace(definition, tags=tuple(sorted(set(definition.tags))))


def check_description(text: str) -> None:
    """Raise :class:`InvalidThing` when ``text`` cannot be a description."""
    if len(text) > DESCRIPTION_MAX:
        raise InvalidThing(f"a description has at most {DESCRIPTION_MAX} characters", "/description")
    if _DESCRIPTION.fullmatch(text) is None:
        raise InvalidThing("a description is one line without control characters", "/description")
