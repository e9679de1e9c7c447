"""The things and the thing types that the broker knows, and whether the things are there.

Pure: the caller brings the time (Unix seconds, for display), and hears by ``changed`` what
is to be kept. Everything is a dict in memory; the store behind it is only ever written.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_broker.errors import InvalidThing, ThingExists, TypeInUse, UnknownThing, UnknownThingType
from thingctl_broker.things.records import (
    RegistryChange,
    Stored,
    StoredPresence,
    StoredThing,
    keys_of,
    stored_thing,
)
from thingctl_broker.things.thing import (
    Definition,
    Thing,
    ThingType,
    checked_definition,
)
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import check_thing_name
from thingctl_protocol.messages import Announcement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from thingctl_broker.things.thing import ThingQuery

SEEN_SECONDS: Final = 60.0
"""How exact it is when a thing was last seen that only answers."""

ANNOUNCEMENTS_SHARED: Final = 1024
"""Different announcements that are held once, however many things say the same."""


class ThingRegistry:
    """Things and thing types by name.

    ``enrols``: whether a thing that connects without having been added becomes known by
    that (open enrolment).
    """

    def __init__(self, *, enrols: bool = True, changed: Callable[[Stored, str], None] | None = None) -> None:
        self.enrols = enrols
        self.learns = enrols and changed is None
        """Whether the commands of the past make their things known: nothing else remembers them."""
        self._changed = changed if changed is not None else _nothing
        self._things: dict[str, Thing] = {}
        self._types: dict[str, ThingType] = {}
        self._by_type: defaultdict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[Thing]:
        return iter(self._things.values())

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def get(self, name: str) -> Thing | None:
        """The thing with that name, if it is known."""
        return self._things.get(name)

    def need(self, name: str) -> Thing:
        """The thing with that name; raises :class:`UnknownThing`."""
        thing = self._things.get(name)
        if thing is None:
            raise UnknownThing(f"no thing is named {ascii(name)[:140]}")
        return thing

    def select(self, query: ThingQuery, limit: int, after: str = "") -> tuple[list[Thing], str | None]:
        """At most ``limit`` things by name, behind ``after``, and what the next page goes on from."""
        among: Iterable[Thing] = self
        if query.type is not None:
            among = (self._things[name] for name in self._by_type.get(query.type, ()))
        found = heapq.nsmallest(
            limit + 1,
            (thing for thing in among if thing.name > after and query.admits(thing)),
            key=attrgetter("name"),
        )
        return found[:limit], found[limit - 1].name if len(found) > limit else None

    # What things do.

    def know(self, name: str, at: float) -> Thing:
        """The thing with that name, made known if it was not."""
        thing = self._things.get(name)
        if thing is None:
            thing = self._things[name] = Thing(name, first_seen=at)
            self._changed(Stored.THING, name)
        return thing

    def connected(self, name: str, client_id: str, at: float, *, anew: bool = False) -> None:
        """Note that the thing has connected.

        ``anew``: ``since`` is this connection's, too, when there was one before. Where messages
        overtake one another, the end of that one may come later, and is known by its time.
        """
        thing = self.know(name, at)
        if not thing.online or anew:
            thing.online = True
            thing.since = at
        thing.client_id = client_id
        thing.last_seen = at
        self._changed(Stored.PRESENCE, name)

    def taken_over(self, name: str) -> None:
        """Note that a client took the thing's session from another connection."""
        thing = self._things.get(name)
        if thing is not None:
            thing.takeovers += 1

    def seen(self, name: str, at: float) -> None:
        """Note that the thing has said something; written down at most once in ``SEEN_SECONDS``."""
        thing = self._things.get(name)
        if thing is not None and (thing.last_seen is None or at >= thing.last_seen + SEEN_SECONDS):
            thing.last_seen = at
            self._changed(Stored.PRESENCE, name)

    def disconnected(self, name: str, at: float) -> None:
        """Note that the thing's last connection is gone."""
        thing = self._things.get(name)
        if thing is not None:
            if thing.online:
                thing.online = False
                thing.since = at
            thing.last_seen = at
            self._changed(Stored.PRESENCE, name)

    def announced(self, name: str, announcement: Announcement | None, at: float) -> None:
        """Note what the thing says it can do; None: it withdrew that."""
        thing = self.know(name, at)
        thing.announcement = (
            None if announcement is None else _announcement(msgspec.json.encode(announcement))
        )
        thing.last_seen = at
        thing.checks = {}
        self._changed(Stored.ANNOUNCEMENT, name)

    # What operators do: first decided, then kept, then made.

    def adding(self, name: str, definition: Definition, at: float, password_hash: str = "") -> RegistryChange:
        """The change that adds a thing; raises :class:`ThingExists` or :class:`InvalidThing`."""
        if name in self._things:
            raise ThingExists(f"there is a thing named {name!r} already")
        return self._thing_change(
            self._new(name, at), definition=self._checked(definition), password_hash=password_hash
        )

    def defining(self, name: str, definition: Definition, at: float) -> RegistryChange:
        """The change that adds a thing, or says anew what it is; its credentials and its presence stay.

        Raises :class:`InvalidThing` when the name or the definition cannot be.
        """
        thing = self._things.get(name) or self._new(name, at)
        return self._thing_change(thing, definition=self._checked(definition))

    def renewing(self, name: str, password_hash: str, at: float, keep_old: float | None) -> RegistryChange:
        """The change that gives a thing another password.

        ``keep_old``: for how many seconds the old password stays valid at most; 0: it ends with the
        change; None: until the device signs in with the new one. The old one is the last that the
        device may have: a password that it has never signed in with is not kept instead.
        Raises :class:`UnknownThing`.
        """
        thing = self.need(name)
        previous = thing.hashes(at)[-1:] if keep_old != 0 else ()
        until = None if keep_old is None or not previous else at + keep_old
        return self._thing_change(
            thing, password_hash=password_hash, previous_hash="".join(previous), previous_until=until
        )

    def proving(self, name: str, password_hash: str) -> RegistryChange:
        """The change that ends the old password, because the device has signed in with the new one.

        Without an old one, or with another password since, nothing changes.
        """
        thing = self.need(name)
        if thing.password_hash != password_hash:
            return self._thing_change(thing)
        return self._thing_change(thing, previous_hash="", previous_until=None)

    def disarming(self, name: str) -> RegistryChange:
        """The change that takes a thing's passwords away; raises :class:`UnknownThing`."""
        return self._with_password(name, "")

    def removing(self, name: str) -> RegistryChange:
        """The change that forgets a thing and all about it; raises :class:`UnknownThing`."""
        return RegistryChange(Stored.THING, self.need(name).name, None)

    def apply(self, change: RegistryChange) -> None:
        """Make a change. Nothing is said to ``changed``."""
        self.mirror(change.kept, change.name, change.record)

    def define(self, name: str, definition: Definition, at: float) -> Thing:
        """Decide and make what :meth:`defining` says; return the thing."""
        self._make(self.defining(name, definition, at))
        return self._things[name]

    def set_password_hash(self, name: str, password_hash: str) -> None:
        """Give the thing another password, or none (empty); raises :class:`UnknownThing`."""
        self._make(self._with_password(name, password_hash))

    def remove(self, name: str) -> None:
        """Decide and make what :meth:`removing` says."""
        self._make(self.removing(name))

    # Thing types.

    @property
    def types(self) -> dict[str, ThingType]:
        """Every thing type by its name; not to be changed."""
        return self._types

    def need_type(self, name: str) -> ThingType:
        """The thing type with that name; raises :class:`UnknownThingType`."""
        thing_type = self._types.get(name)
        if thing_type is None:
            raise UnknownThingType(f"no thing type is named {ascii(name)[:140]}")
        return thing_type

    def type_of(self, thing: Thing) -> ThingType | None:
        """The thing's type, if it has one."""
        return self._types.get(thing.definition.type)

    def count_of_type(self, name: str, visible: Callable[[str], bool] | None = None) -> int:
        """Return the number of things of that type; ``visible``: count only these, None: all."""
        names = self._by_type.get(name, ())
        return len(names) if visible is None else sum(map(visible, names))

    def putting_type(self, thing_type: ThingType) -> RegistryChange:
        """The change that adds a thing type or replaces it. Its schemas have been looked at."""
        return RegistryChange(Stored.TYPE, thing_type.name, msgspec.json.encode(thing_type))

    def removing_type(self, name: str) -> RegistryChange:
        """The change that forgets a thing type; raises :class:`UnknownThingType` or :class:`TypeInUse`."""
        self.need_type(name)
        if count := self.count_of_type(name):
            raise TypeInUse(f"{count} things are of the type {name!r}")
        return RegistryChange(Stored.TYPE, name, None)

    def put_type(self, thing_type: ThingType) -> None:
        """Decide and make what :meth:`putting_type` says."""
        self._make(self.putting_type(thing_type))

    def remove_type(self, name: str) -> None:
        """Decide and make what :meth:`removing_type` says."""
        self._make(self.removing_type(name))

    # What a store keeps.

    def record(self, kept: Stored, name: str) -> bytes | None:
        """What is to be kept of the thing or type at present; None: nothing (any longer)."""
        if kept is Stored.TYPE:
            thing_type = self._types.get(name)
            return None if thing_type is None else msgspec.json.encode(thing_type)
        thing = self._things.get(name)
        if thing is None:
            return None
        match kept:
            case Stored.THING:
                return msgspec.json.encode(stored_thing(thing))
            case Stored.PRESENCE:
                return msgspec.json.encode(
                    StoredPresence(thing.last_seen, thing.since, thing.client_id, thing.online)
                )
            case _:
                return None if thing.announcement is None else msgspec.json.encode(thing.announcement)

    def restore(self, records: Iterable[tuple[Stored, str, bytes]]) -> int:
        """Take in what was kept; return how many things that were.

        Records of things come before those of their presence and announcement. Nothing is
        told to ``changed``. Raises :class:`msgspec.DecodeError` for a damaged record.
        """
        for kept, name, record in records:
            if kept is Stored.TYPE:
                self._types[name] = msgspec.json.decode(record, type=ThingType)
                continue
            if kept is Stored.THING:
                stored = msgspec.json.decode(record, type=StoredThing)
                self._mirror_thing(name, stored)
                continue
            known = self._things.get(name)
            if known is None:
                continue
            if kept is Stored.ANNOUNCEMENT:
                known.announcement = _announcement(record)
            else:
                presence = msgspec.json.decode(record, type=StoredPresence)
                # Devices recorded as online at shutdown are marked offline as of their last-seen time.
                known.last_seen, known.since = presence.last_seen, presence.since
                known.client_id = presence.client_id
        return len(self._things)

    def mirror(self, kept: Stored, name: str, record: bytes | None) -> None:
        """Take in one record as another process keeps it; None: it is gone.

        What belongs to a thing that is not known is left alone. Nothing is told to ``changed``.
        Raises :class:`msgspec.DecodeError` for a damaged record.
        """
        if kept is Stored.TYPE:
            if record is None:
                self._types.pop(name, None)
            else:
                self._types[name] = msgspec.json.decode(record, type=ThingType)
            self._schemas_changed(name)
            return
        thing = self._things.get(name)
        if kept is Stored.THING:
            if record is not None:
                self._mirror_thing(name, msgspec.json.decode(record, type=StoredThing))
            elif thing is not None:
                self._by_type[thing.definition.type].discard(name)
                del self._things[name]
        elif thing is None:
            return
        elif kept is Stored.ANNOUNCEMENT:
            thing.announcement = None if record is None else _announcement(record)
            thing.checks = {}
        elif record is not None:
            presence = msgspec.json.decode(record, type=StoredPresence)
            thing.last_seen, thing.since = presence.last_seen, presence.since
            thing.client_id, thing.online = presence.client_id, presence.online

    # How it is done.

    def _make(self, change: RegistryChange) -> None:
        self.apply(change)
        for kept, name in keys_of(change):
            self._changed(kept, name)

    @staticmethod
    def _new(name: str, at: float) -> Thing:
        try:
            check_thing_name(name, "/name")
        except ProtocolError as error:
            raise InvalidThing(error.text, error.pointer) from None
        return Thing(name, first_seen=at)

    def _with_password(self, name: str, password_hash: str) -> RegistryChange:
        return self._thing_change(
            self.need(name), password_hash=password_hash, previous_hash="", previous_until=None
        )

    @staticmethod
    def _thing_change(thing: Thing, **fields: Any) -> RegistryChange:
        stored = msgspec.structs.replace(stored_thing(thing), **fields)
        return RegistryChange(Stored.THING, thing.name, msgspec.json.encode(stored))

    def _mirror_thing(self, name: str, stored: StoredThing) -> None:
        thing = self._things.get(name)
        if thing is None:
            thing = self._things[name] = Thing(name, stored.first_seen)
        thing.first_seen, thing.password_hash = stored.first_seen, stored.password_hash
        thing.previous_hash, thing.previous_until = stored.previous_hash, stored.previous_until
        self._file(thing, stored.definition)

    def _checked(self, definition: Definition) -> Definition:
        if definition.type and definition.type not in self._types:
            raise InvalidThing(f"no thing type is named {ascii(definition.type)[:140]}", "/type")
        return checked_definition(definition)

    def _file(self, thing: Thing, definition: Definition) -> None:
        self._by_type[thing.definition.type].discard(thing.name)
        thing.definition = definition
        self._by_type[definition.type].add(thing.name)
        thing.checks = {}

    def _schemas_changed(self, type_name: str) -> None:
        for name in self._by_type.get(type_name, ()):
            self._things[name].checks = {}


@lru_cache(ANNOUNCEMENTS_SHARED)
def _announcement(record: bytes) -> Announcement:
    """What a record says: for things with the same agent one object, which holds some ten times its bytes."""
    return msgspec.json.decode(record, type=Announcement)


def _nothing(*_: Any) -> None:
    """Keep nothing."""
