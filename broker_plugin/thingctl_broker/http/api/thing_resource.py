"""Things and thing types over the wire: request bodies and resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from thingctl_broker.commands.field_types import (
    ActionName,
    JsonObject,
    Password,
    Time,
    described,
    whole,
)
from thingctl_broker.system.timestamps import rfc3339
from thingctl_broker.things.drift import Drift, find_drift
from thingctl_broker.things.param_schemas import check_schema
from thingctl_broker.things.schema_limits import SchemaFault
from thingctl_broker.things.thing import (
    TAGS_MAX,
    TYPE_ACTIONS_MAX,
    Definition,
    Description,
    Tag,
    ThingName,
    ThingType,
)
from thingctl_protocol.bundle import Bundle, encode_bundle
from thingctl_protocol.identifiers import THING_PATTERN
from thingctl_protocol.messages import ActionDescription, Announcement

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.thing import Thing


OLD_VALID_MAX: Final = 366 * 24 * 3600
"""Seconds for which an old password can stay valid."""


TypeOrNone = Annotated[str, described(pattern=whole(f"({THING_PATTERN})?"))]
"""The name of a thing type, or nothing."""

Tags = Annotated[tuple[Tag, ...], described(maxItems=TAGS_MAX)]


class ThingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``PUT /api/v1/things/{name}`` takes: the whole of what an operator says of a thing."""

    type: TypeOrNone | None = None
    tags: Tags = ()
    description: Description = ""
    enabled: bool = True

    def definition(self) -> Definition:
        """What the registry takes."""
        return Definition(self.type or "", self.tags, self.description, self.enabled)


class NewThingBody(ThingBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``POST /api/v1/things`` takes. ``password``: made, unless given.

    ``withPassword``: false for a thing that signs in with a certificate. ``requireBundle``: refuse
    the call when there is no bundle to give.
    """

    name: ThingName
    password: Password | None = None
    with_password: bool = msgspec.field(default=True, name="withPassword")
    require_bundle: bool = msgspec.field(default=False, name="requireBundle")


class ThingPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``PATCH /api/v1/things/{name}`` takes: a JSON merge patch (RFC 7396), null removes."""

    type: TypeOrNone | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET

    def applied_to(self, definition: Definition) -> Definition:
        """The definition with the patch in it."""
        return Definition(
            definition.type if self.type is UNSET else self.type or "",
            definition.tags if self.tags is UNSET else self.tags or (),
            definition.description if self.description is UNSET else self.description or "",
            definition.enabled if self.enabled is UNSET else self.enabled is not False,
        )


class ActionBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An action of a thing type. The schemas are JSON Schema 2020-12."""

    name: ActionName
    description: str = ""
    params_schema: dict[str, Any] | None = None
    result_schema: dict[str, Any] | None = None
    policy: dict[str, Any] = {}

    def action(self) -> ActionDescription:
        """What the registry takes."""
        return ActionDescription(
            self.name, self.description, self.params_schema, self.result_schema, self.policy
        )


ActionBodies = Annotated[tuple[ActionBody, ...], described(maxItems=TYPE_ACTIONS_MAX)]


class TypeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``PUT /api/v1/thing-types/{name}`` takes."""

    description: Description = ""
    actions: ActionBodies = ()

    def thing_type(self, name: str) -> ThingType:
        """What the registry takes."""
        return ThingType(name, self.description, tuple(action.action() for action in self.actions))


class TypePatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``PATCH /api/v1/thing-types/{name}`` takes: a JSON merge patch; a list is replaced as a whole."""

    description: Description | UnsetType | None = UNSET
    actions: ActionBodies | UnsetType | None = UNSET

    def applied_to(self, thing_type: ThingType) -> ThingType:
        """The type with the patch in it."""
        actions = thing_type.actions
        if self.actions is not UNSET:
            actions = tuple(action.action() for action in self.actions or ())
        description = thing_type.description if self.description is UNSET else self.description or ""
        return ThingType(thing_type.name, description, actions)


class PasswordBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What ``POST /api/v1/things/{name}/password`` takes. ``password``: made, unless given.

    ``oldValidFor``: seconds for which the old password stays valid at most; 0: it ends with the call,
    and the thing's connections are closed; null: until the thing signs in with the new one.
    ``requireBundle``: refuse the call when there is no bundle to give.
    """

    password: Password | None = None
    old_valid_for: Annotated[int, msgspec.Meta(ge=0, le=OLD_VALID_MAX)] | None = None
    require_bundle: bool = False


class OldPassword(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The password before the present one, while it is valid, too.

    It ends when the thing signs in with the present one, and at ``validUntil`` at the latest.
    """

    valid_until: Time | None = None


class Given(NamedTuple):
    """What a device is given. ``password``: empty for none; ``bundle`` or ``bundle_fault``."""

    password: str
    bundle: Bundle | None
    bundle_fault: str

    def fields(self, thing: str) -> dict[str, Any]:
        """As the thing's resource tells it."""
        return {
            "credentials": CredentialsResource(thing, self.password) if self.password else None,
            "bundle": None if self.bundle is None else msgspec.Raw(encode_bundle(self.bundle)),
            "bundle_fault": self.bundle_fault or None,
        }


class SchemaFaultResource(msgspec.Struct, frozen=True):
    """An announced schema that is not enforced, and why. ``pointer``: where in the schema."""

    action: str
    fault: str
    pointer: str


class CredentialsResource(msgspec.Struct, frozen=True):
    """What a device signs in with; told this once."""

    username: str
    password: str


class ThingResource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A thing as the API shows it. Times: RFC 3339, UTC.

    ``actions``: the names that the thing announced; without an announcement the field is left out.
    ``announcement``, ``drift`` and ``schemaFaults`` are shown for one thing, not in lists.
    """

    name: str
    enabled: bool
    online: bool
    tags: tuple[str, ...]
    has_password: bool
    first_seen: Time
    type: str | None = None
    description: str = ""
    since: Time | None = None
    last_seen: Time | None = None
    client_id: str = ""
    takeovers: int = 0
    agent_version: str = ""
    actions: list[str] | None = None
    announcement: Announcement | None = None
    drift: list[Drift] | None = None
    schema_faults: list[SchemaFaultResource] | None = None
    credentials: CredentialsResource | None = None
    bundle: JsonObject | None = None
    """The file that enrols the device, credentials and all."""
    bundle_fault: str | None = None
    """Why there is no bundle, and what to set."""
    old_password: OldPassword | None = None
    """There while the password before the present one is valid, too."""


class TypeResource(msgspec.Struct, frozen=True, rename="camel"):
    """A thing type as the API shows it. ``things``: how many things of it the token may see."""

    name: str
    description: str
    actions: tuple[ActionDescription, ...]
    things: int


thing_body_decoder: Final = msgspec.json.Decoder(ThingBody)
new_thing_decoder: Final = msgspec.json.Decoder(NewThingBody)
thing_patch_decoder: Final = msgspec.json.Decoder(ThingPatch)
password_body_decoder: Final = msgspec.json.Decoder(PasswordBody)
type_body_decoder: Final = msgspec.json.Decoder(TypeBody)
type_patch_decoder: Final = msgspec.json.Decoder(TypePatch)


def thing_resource(thing: Thing, at: float) -> ThingResource:
    """The thing as lists show it. ``at``: the time, in Unix seconds."""
    announcement, definition = thing.announcement, thing.definition
    return ThingResource(
        name=thing.name,
        enabled=definition.enabled,
        online=thing.online,
        tags=definition.tags,
        has_password=bool(thing.password_hash),
        first_seen=rfc3339(thing.first_seen),
        type=definition.type or None,
        description=definition.description,
        since=None if thing.since is None else rfc3339(thing.since),
        last_seen=None if thing.last_seen is None else rfc3339(thing.last_seen),
        client_id=thing.client_id,
        takeovers=thing.takeovers,
        agent_version="" if announcement is None else announcement.agent_version,
        actions=None if announcement is None else [action.name for action in announcement.actions],
        old_password=_old_password(thing, at),
    )


def whole_thing(thing: Thing, registry: ThingRegistry, at: float, given: Given | None = None) -> bytes:
    """All there is about a thing, encoded; ``given``: what its device is given, this once."""
    resource = thing_resource(thing, at)
    announcement, thing_type = thing.announcement, registry.type_of(thing)
    drift = None
    if announcement is not None and thing_type is not None:
        drift = find_drift(thing_type, announcement)
    return msgspec.json.encode(
        msgspec.structs.replace(
            resource,
            announcement=announcement,
            drift=drift,
            schema_faults=None if announcement is None else _faults(announcement) or None,
            **({} if given is None else given.fields(thing.name)),
        )
    )


def _old_password(thing: Thing, at: float) -> OldPassword | None:
    if not thing.previous_hash or thing.previous_hash not in thing.hashes(at):
        return None
    return OldPassword(None if thing.previous_until is None else rfc3339(thing.previous_until))


def type_resource(
    thing_type: ThingType, registry: ThingRegistry, visible: Callable[[str], bool] | None
) -> TypeResource:
    """The thing type as the API shows it. ``visible``: the things that the caller may see; None: all."""
    return TypeResource(
        thing_type.name,
        thing_type.description,
        thing_type.actions,
        registry.count_of_type(thing_type.name, visible),
    )


def _faults(announcement: Announcement) -> list[SchemaFaultResource]:
    found = []
    for action in announcement.actions:
        if action.params_schema is not None:
            try:
                check_schema(action.params_schema)
            except SchemaFault as fault:
                found.append(SchemaFaultResource(action.name, fault.text, fault.pointer))
    return found
