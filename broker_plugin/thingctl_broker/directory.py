"""What operators do with things and thing types; each returns when it is kept.

The registry decides, the store keeps, the front lets go of whom it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from thingctl_broker.audit import Event, Note, note_nothing
from thingctl_broker.errors import InvalidThing, NotAccepting, ThingExists
from thingctl_broker.param_schemas import check_type
from thingctl_broker.passwords import PASSWORD_MAX, PASSWORD_MIN, Busy, TooManyFailures, make_password
from thingctl_broker.schema_bounds import SchemaFault
from thingctl_broker.things import TYPE_ACTIONS_MAX, Definition, check_description
from thingctl_protocol.bundle import Bundle
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import check_action_name, check_thing_name, is_thing_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.operations import Operations
    from thingctl_broker.passwords import Passwords
    from thingctl_broker.things import Thing, ThingType

_log = structlog.get_logger("thingctl.registry")


class Store(Protocol):
    """What keeps the registry."""

    async def kept(self, new: str = "") -> None:
        """Return when every change so far is kept; raises :class:`~thingctl_broker.errors.NotKept`.

        ``new``: a thing that was added. Raises :class:`ThingExists` where others share the
        store, and one of them was faster.
        """
        ...


class Expel(Protocol):
    """What closes the connections of a thing; ``forget``: what was kept for it goes, too."""

    def __call__(self, thing: str, reason: str, *, forget: bool = False) -> None:
        """Close them, if there are any."""
        ...


class NoStore:
    """Keeps nothing."""

    async def kept(self, new: str = "") -> None:
        """Nothing is kept."""


class Directory:
    """Things and thing types as operators see them."""

    def __init__(
        self,
        operations: Operations,
        passwords: Passwords,
        store: Store | None = None,
        expel: Expel | None = None,
        note: Note = note_nothing,
    ) -> None:
        """``expel`` closes the connections of a thing; ``note`` writes down what was done."""
        self.registry = operations.things
        self._operations = operations
        self._passwords = passwords
        self._store = NoStore() if store is None else store
        self._expel = expel if expel is not None else _nobody
        self._note = note
        self.bundle: Callable[[str, str], Bundle] = _local_bundle
        """What the device of a thing with a password is to be told."""

    async def add(self, name: str, definition: Definition, password: str | None = None) -> tuple[Thing, str]:
        """Add a thing that is not there yet; return it and its password, made unless given.

        Raises :class:`ThingExists`, :class:`InvalidThing`, :class:`NotKept`.
        """
        password = _checked_password(password)
        self._check_new(name)
        password_hash = await self._passwords.hash(password)
        self._check_new(name)  # somebody may have added it meanwhile
        thing = self.registry.define(name, definition, self._operations.unix())
        self.registry.set_password_hash(name, password_hash)
        await self._store.kept(new=name)
        self._note(Event.THING_ADDED, thing=name, detail=_told(definition))
        return thing, password

    async def put(self, name: str, definition: Definition) -> tuple[Thing, bool]:
        """Say what a thing is; return it, and whether it is new. Its credentials stay."""
        is_new = self.registry.get(name) is None
        thing = self.registry.define(name, definition, self._operations.unix())
        if not thing.enabled:
            self._expel(name, "the thing was disabled")
        self._note(
            Event.THING_ADDED if is_new else Event.THING_CHANGED, thing=name, detail=_told(thing.definition)
        )
        await self._store.kept()
        return thing, is_new

    async def remove(self, name: str) -> None:
        """Forget a thing: its connections end, what waits for it is withdrawn."""
        self.registry.remove(name)
        self._note(Event.THING_REMOVED, thing=name)
        self._expel(name, "the thing was removed", forget=True)
        try:
            # First, so that no other worker takes commands for it while very many are withdrawn.
            await self._store.kept()
        finally:
            await self._operations.withdraw(name)

    async def new_password(self, name: str, password: str | None = None) -> str:
        """Give a thing a new password, made unless given, and return it; the old one ends at once."""
        password = _checked_password(password)
        self.registry.need(name)
        password_hash = await self._passwords.hash(password)
        self.registry.set_password_hash(name, password_hash)
        self._expel(name, "the thing has a new password")
        self._note(Event.THING_PASSWORD, thing=name, detail="made")
        await self._store.kept()
        return password

    async def authenticate(self, name: str, password: str, source: str) -> bool | None:
        """Whether that is the thing's password, and it may connect; None: no such thing has one.

        ``source``: from where it was tried; after too many wrong ones all are wrong for a while.
        Raises :class:`NotAccepting` when too many are tried at once.
        """
        thing = await self._operations.thing(name) if is_thing_name(name) else None
        if thing is None or not thing.password_hash:
            return None
        encoded = password.encode(errors="replace")
        if not self._passwords.remembers(name, thing.password_hash, encoded):
            try:
                if not await self._passwords.verify(name, thing.password_hash, encoded, source):
                    return False
            except TooManyFailures:
                return False
            except Busy:
                raise NotAccepting("too many are signing in at once", retry_after=1) from None
        return self.registry.get(name) is thing and thing.enabled

    async def remove_password(self, name: str) -> None:
        """Take a thing's password away: only a certificate lets it in then."""
        self.registry.set_password_hash(name, "")
        self._expel(name, "the thing's password was taken away")
        self._note(Event.THING_PASSWORD, thing=name, detail="removed")
        await self._store.kept()

    async def put_type(self, thing_type: ThingType) -> bool:
        """Say what a thing type is; return whether it is new. Raises :class:`InvalidThing`."""
        _check_type(thing_type)
        is_new = thing_type.name not in self.registry.types
        self.registry.put_type(thing_type)
        self._note(Event.TYPE_PUT, detail=thing_type.name)
        await self._store.kept()
        return is_new

    async def remove_type(self, name: str) -> None:
        """Forget a thing type that no thing is of."""
        self.registry.remove_type(name)
        self._note(Event.TYPE_REMOVED, detail=name)
        await self._store.kept()

    def _check_new(self, name: str) -> None:
        if self.registry.get(name) is not None:
            raise ThingExists(f"there is a thing named {name!r} already")


def _local_bundle(thing: str, password: str) -> Bundle:
    return Bundle(thing, "mqtt://127.0.0.1:1883", thing, password)


def _told(definition: Definition) -> str:
    return msgspec.json.encode(definition).decode()


def _checked_password(password: str | None) -> str:
    if password is None:
        return make_password()
    if len(password) < PASSWORD_MIN or len(password.encode("utf-8", "replace")) > PASSWORD_MAX:
        raise InvalidThing(
            f"a password has {PASSWORD_MIN} characters or more, and at most {PASSWORD_MAX} bytes", "/password"
        )
    return password


def _check_type(thing_type: ThingType) -> None:
    if len(thing_type.actions) > TYPE_ACTIONS_MAX:
        raise InvalidThing(f"a thing type has at most {TYPE_ACTIONS_MAX} actions", "/actions")
    try:
        check_thing_name(thing_type.name, "/name")
        check_description(thing_type.description)
        seen: set[str] = set()
        for i, action in enumerate(thing_type.actions):
            check_action_name(action.name, f"/actions/{i}/name")
            if action.name in seen:
                raise InvalidThing(f"the action {action.name!r} is there twice", f"/actions/{i}/name")
            seen.add(action.name)
        check_type(thing_type)
    except (ProtocolError, SchemaFault) as error:
        raise InvalidThing(error.text, error.pointer) from None


def _nobody(thing: str, reason: str, *, forget: bool = False) -> None:
    """Nobody is connected."""
