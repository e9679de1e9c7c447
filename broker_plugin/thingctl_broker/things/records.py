"""The records that are kept of things and thing types, and a change to one that is not made yet."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from thingctl_broker.things.thing import Definition

if TYPE_CHECKING:
    from thingctl_broker.things.thing import Thing


class Stored(StrEnum):
    """The records that a store keeps: one for each thing of each kind."""

    THING = "thing"
    PRESENCE = "presence"
    ANNOUNCEMENT = "announcement"
    TYPE = "type"


class RegistryChange(NamedTuple):
    """A change that is decided and not made yet: the record as it will be; None: it goes.

    With the record of a thing go those of its presence and its announcement.
    """

    kept: Stored
    name: str
    record: bytes | None


def keys_of(change: RegistryChange) -> list[tuple[Stored, str]]:
    """The records that the change is about: with a thing that goes, go those that belong to it."""
    gone = change.kept is Stored.THING and change.record is None
    kinds = (Stored.THING, Stored.PRESENCE, Stored.ANNOUNCEMENT) if gone else (change.kept,)
    return [(kept, change.name) for kept in kinds]


class StoredThing(msgspec.Struct, omit_defaults=True):
    """A thing itself."""

    first_seen: float
    definition: Definition = Definition()
    password_hash: str = ""
    previous_hash: str = ""
    previous_until: float | None = None


class StoredPresence(msgspec.Struct, omit_defaults=True):
    """Whether it is there, and since when."""

    last_seen: float | None = None
    since: float | None = None
    client_id: str = ""
    online: bool = False


def stored_thing(thing: Thing) -> StoredThing:
    """What is to be kept of a thing itself."""
    return StoredThing(
        thing.first_seen,
        thing.definition,
        thing.password_hash,
        thing.previous_hash,
        thing.previous_until,
    )
