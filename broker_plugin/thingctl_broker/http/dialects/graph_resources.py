"""What Graph's clients send and what they are answered, as structs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from thingctl_broker.commands.field_types import URI_PATTERN, JsonObject, described, whole
from thingctl_protocol.identifiers import THING_PATTERN
from thingctl_protocol.messages import EMPTY_OBJECT

if TYPE_CHECKING:
    from thingctl_broker.things.thing import Thing


_SPELLED: Final = {
    f"{name}_": name.capitalize() for name in ("name", "status", "platform", "kind", "model", "manufacturer")
}


class GraphCommandBody(msgspec.Struct, frozen=True, rename="camel"):
    """A ``LaunchUriBody`` or an ``AppServiceBody``, names of fields and ``type`` in any case."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(EMPTY_OBJECT)
    package_family_name: str | None = None
    app_service_name: str | None = None
    post_back_uri: str | None = None


_NotGiven = Annotated[str, described(maxLength=0)] | None


_UriOrNone = Annotated[str, described(pattern=f"^$|{URI_PATTERN}")]


_ServiceName = Annotated[str, described(pattern=whole(THING_PATTERN))]


class LaunchUriBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a POST of a LaunchUri command takes: ``payload`` has the uri."""

    type: Annotated[str, described(enum=["LaunchUri"])]
    payload: JsonObject | UnsetType = UNSET
    package_family_name: _NotGiven = None
    app_service_name: _NotGiven = None
    post_back_uri: _UriOrNone | None = None


class AppServiceBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a POST of an AppService command takes: ``payload`` is any JSON."""

    type: Annotated[str, described(enum=["AppService"])]
    package_family_name: _ServiceName
    app_service_name: _ServiceName
    payload: Any = UNSET
    post_back_uri: _UriOrNone | None = None


class GraphCommand(msgspec.Struct, frozen=True, rename="camel"):
    """A command as Graph shows it."""

    id: str
    status: str
    type: str
    app_service_name: str | None
    package_family_name: str | None
    error: str | None
    response_payload: msgspec.Raw | None
    payload: msgspec.Raw
    permission_ticket: str | None
    post_back_uri: str | None


class GraphDevice(msgspec.Struct, frozen=True, rename=_SPELLED):
    """A thing as Graph shows it, each field but ``id`` in both spellings.

    ``status``: Online or Offline. The broker does not know the rest. With ``$select`` any may be missing.
    """

    id: str = ""
    name: str = ""
    name_: str = ""
    status: str = ""
    status_: str = ""
    platform: str = "Unknown"
    platform_: str = "Unknown"
    kind: str = "Unknown"
    kind_: str = "Unknown"
    model: str | None = None
    model_: str | None = None
    manufacturer: str | None = None
    manufacturer_: str | None = None

    @classmethod
    def of(cls, thing: Thing) -> GraphDevice:
        """What Graph shows of a thing."""
        status = "Online" if thing.online else "Offline"
        return cls(thing.name, thing.name, thing.name, status, status)


class GraphDevices(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of devices."""

    value: list[GraphDevice]
    next_link: str | None = msgspec.field(name="@odata.nextLink", default=None)


class GraphErrorBody(msgspec.Struct, frozen=True):
    """A code for programs and a sentence for people."""

    code: str
    message: str


class GraphError(msgspec.Struct, frozen=True):
    """How every fault is told."""

    error: GraphErrorBody
