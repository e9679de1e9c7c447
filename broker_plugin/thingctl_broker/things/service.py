"""What operators do with things and thing types; each returns when it is kept.

The registry validates and the store persists. Then the change is made, and the MQTT server
disconnects clients that lost access.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
import structlog

from thingctl_broker.errors import InvalidThing, NotAccepting, ServiceError
from thingctl_broker.security.audit_events import Event, Note, note_nothing
from thingctl_broker.security.passwords import (
    PASSWORD_MAX,
    PASSWORD_MIN,
    Busy,
    TooManyFailures,
    make_password,
)
from thingctl_broker.things.enrolment import Enrolment
from thingctl_broker.things.param_schemas import check_type
from thingctl_broker.things.schema_limits import SchemaFault
from thingctl_broker.things.thing import TYPE_ACTIONS_MAX, Definition, check_description
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import check_action_name, check_thing_name, is_thing_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from thingctl_broker.security.passwords import Passwords
    from thingctl_broker.things.records import RegistryChange
    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.thing import Thing, ThingType

T = TypeVar("T")

_log = structlog.get_logger("thingctl.registry")


class CommandsOfThings(Protocol):
    """What the service of things asks of the commands."""

    @property
    def things(self) -> ThingRegistry:
        """The registry."""
        ...

    def unix(self) -> float:
        """Return the time, Unix seconds."""
        ...

    async def thing(self, name: str) -> Thing | None:
        """Return the thing of that name."""
        ...

    async def withdraw(self, thing: str) -> None:
        """Withdraw the commands that wait for a thing."""
        ...


class Store(Protocol):
    """What keeps the registry."""

    async def keep(
        self, decide: Callable[[], RegistryChange], made: Callable[[RegistryChange], None]
    ) -> None:
        """Keep the change that ``decide`` returns, then call ``made`` with it.

        No other change comes between the three. Where others share the store, ``decide`` is
        asked again when one of them has changed the same record. What it raises ends the call.
        Raises :class:`~thingctl_broker.errors.NotKept` or
        :class:`~thingctl_broker.errors.NotAccepting`; then nothing was changed.
        """
        ...


class Expel(Protocol):
    """What closes the connections of a thing; ``forget``: what was kept for it goes, too."""

    def __call__(self, thing: str, reason: str, *, forget: bool = False) -> None:
        """Close them, if there are any."""
        ...


class NoStore:
    """Keeps nothing."""

    async def keep(
        self, decide: Callable[[], RegistryChange], made: Callable[[RegistryChange], None]
    ) -> None:
        """Decide, and make it."""
        made(decide())


class ThingService:
    """Things and thing types as operators see them.

    A change is kept first and made then: one that cannot be kept is no change. It is carried
    through when its caller goes away.
    """

    def __init__(
        self,
        operations: CommandsOfThings,
        passwords: Passwords,
        store: Store | None = None,
        expel: Expel | None = None,
        note: Note = note_nothing,
        *,
        enrolment: Enrolment | None = None,
    ) -> None:
        """``expel`` closes the connections of a thing; ``note`` writes down what was done."""
        self.registry = operations.things
        self.enrolment = Enrolment(_local_url) if enrolment is None else enrolment
        """How devices reach the broker."""
        self._operations = operations
        self._passwords = passwords
        self._store = NoStore() if store is None else store
        self._expel = expel if expel is not None else _nobody
        self._note = note
        self._at_work: set[asyncio.Task[Any]] = set()

    def unix(self) -> float:
        """The time, in Unix seconds."""
        return self._operations.unix()

    async def add(
        self,
        name: str,
        definition: Definition,
        password: str | None = None,
        *,
        with_password: bool = True,
    ) -> tuple[Thing, str]:
        """Add a thing that is not there yet; return it and its password, made unless given.

        Without ``with_password`` it gets none, and the password is empty. Raises
        :class:`ThingExists`, :class:`InvalidThing`, :class:`NotKept`.
        """
        given = _checked_password(password) if with_password else ""
        self.registry.adding(name, definition, self.unix())  # what is refused costs no hash
        password_hash = await self._passwords.hash(given) if given else ""

        def made() -> Thing:
            self._note(Event.THING_ADDED, thing=name, detail=_told(definition))
            return self.registry.need(name)

        thing = await self._whole(
            self._make(lambda: self.registry.adding(name, definition, self.unix(), password_hash), made)
        )
        return thing, given

    async def put(self, name: str, definition: Definition) -> tuple[Thing, bool]:
        """Say what a thing is; return it, and whether it is new. Its credentials stay."""
        return await self._define(name, lambda _: definition)

    async def patch(self, name: str, patched: Callable[[Definition], Definition]) -> Thing:
        """Change what is said of a thing: ``patched`` gets what it is. Raises :class:`UnknownThing`."""

        def defined(thing: Thing | None) -> Definition:
            return patched((self.registry.need(name) if thing is None else thing).definition)

        thing, _ = await self._define(name, defined)
        return thing

    async def remove(self, name: str) -> None:
        """Forget a thing: its connections end, what waits for it is withdrawn."""

        def made() -> None:
            self._note(Event.THING_REMOVED, thing=name)
            self._expel(name, "the thing was removed", forget=True)

        async def removed() -> None:
            # First, so that no other worker takes commands for it while very many are withdrawn.
            await self._make(lambda: self.registry.removing(name), made)
            try:
                await self._operations.withdraw(name)
            except NotAccepting as error:  # the thing is gone; its commands end when their time is over
                _log.warning("commands of a removed thing still wait", thing=name, fault=str(error))

        await self._whole(removed())

    async def new_password(
        self, name: str, password: str | None = None, keep_old: float | None = None
    ) -> tuple[Thing, str]:
        """Give a thing a new password, made unless given; return the thing and the password.

        ``keep_old``: for how many seconds the old one stays valid at most; 0: it ends with this
        call, and so do the thing's connections; None: until the device has signed in with the new one.
        """
        given = _checked_password(password)
        self.registry.need(name)
        password_hash = await self._passwords.hash(given)

        def made() -> Thing:
            if keep_old == 0:
                self._expel(name, "the thing has a new password")
            self._note(Event.THING_PASSWORD, thing=name, detail="made")
            return self.registry.need(name)

        def decide() -> RegistryChange:
            return self.registry.renewing(name, password_hash, self.unix(), keep_old)

        return await self._whole(self._make(decide, made)), given

    async def proven(self, name: str, password_hash: str) -> None:
        """A device has signed in with that password: the old one ends, if there is one.

        When that cannot be kept, the old one stays valid until the next sign-in.
        """
        thing = self.registry.get(name)
        if thing is None or not thing.previous_hash or thing.password_hash != password_hash:
            return
        try:
            await self._whole(self._make(lambda: self.registry.proving(name, password_hash), lambda: None))
        except ServiceError as error:
            _log.warning("an old password cannot be ended yet", thing=name, fault=str(error))
        else:
            self._note(Event.THING_PASSWORD, thing=name, detail="the old one ended")

    async def authenticate(self, name: str, password: str, source: str) -> bool | None:
        """Whether that is the thing's password, and it may connect; None: no such thing has one.

        ``source``: from where it was tried; after too many wrong ones all are wrong for a while.
        Raises :class:`NotAccepting` when too many are tried at once.
        """
        thing = await self._operations.thing(name) if is_thing_name(name) else None
        if thing is None or not thing.password_hash:
            return None
        encoded = password.encode(errors="replace")
        hashes = thing.hashes(self.unix())
        right = self._passwords.remembers(name, hashes, encoded)
        if not right:
            try:
                right = await self._passwords.verify(name, hashes, encoded, source)
            except TooManyFailures:
                return False
            except Busy:
                raise NotAccepting("too many are signing in at once", retry_after=1) from None
        # Verifying took its time: what was decided about the thing meanwhile counts.
        if (
            self.registry.get(name) is not thing
            or not thing.enabled
            or right not in thing.hashes(self.unix())
        ):
            return False
        await self.proven(name, right)
        return True

    async def remove_password(self, name: str) -> None:
        """Take a thing's passwords away: only a certificate lets it in then."""

        def made() -> None:
            self._expel(name, "the thing's password was taken away")
            self._note(Event.THING_PASSWORD, thing=name, detail="removed")

        await self._whole(self._make(lambda: self.registry.disarming(name), made))

    async def put_type(self, thing_type: ThingType) -> bool:
        """Say what a thing type is; return whether it is new. Raises :class:`InvalidThing`."""
        return await self._put_type(thing_type.name, lambda _: thing_type)

    async def patch_type(self, name: str, patched: Callable[[ThingType], ThingType]) -> None:
        """Change some of a thing type: ``patched`` gets what it is. Raises as :meth:`put_type`."""
        await self._put_type(
            name, lambda known: patched(self.registry.need_type(name) if known is None else known)
        )

    async def remove_type(self, name: str) -> None:
        """Forget a thing type that no thing is of."""
        await self._whole(
            self._make(
                lambda: self.registry.removing_type(name), lambda: self._note(Event.TYPE_REMOVED, detail=name)
            )
        )

    # How it is done.

    async def _define(self, name: str, defined: Callable[[Thing | None], Definition]) -> tuple[Thing, bool]:
        is_new = False

        def decide() -> RegistryChange:
            nonlocal is_new
            thing = self.registry.get(name)
            is_new = thing is None
            return self.registry.defining(name, defined(thing), self.unix())

        def made() -> tuple[Thing, bool]:
            thing = self.registry.need(name)
            if not thing.enabled:
                self._expel(name, "the thing was disabled")
            event = Event.THING_ADDED if is_new else Event.THING_CHANGED
            self._note(event, thing=name, detail=_told(thing.definition))
            return thing, is_new

        return await self._whole(self._make(decide, made))

    async def _put_type(self, name: str, given: Callable[[ThingType | None], ThingType]) -> bool:
        is_new = False

        def decide() -> RegistryChange:
            nonlocal is_new
            known = self.registry.types.get(name)
            is_new = known is None
            thing_type = given(known)
            _check_type(thing_type)
            return self.registry.putting_type(thing_type)

        def made() -> bool:
            self._note(Event.TYPE_PUT, detail=name)
            return is_new

        return await self._whole(self._make(decide, made))

    async def _make(self, decide: Callable[[], RegistryChange], made: Callable[[], T]) -> T:
        """Keep what is decided, make it, and return what ``made`` says of it."""
        told: list[T] = []

        def apply(change: RegistryChange) -> None:
            self.registry.apply(change)
            told.append(made())

        await self._store.keep(decide, apply)
        return told[0]

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry it through, also when the caller goes away."""
        task = asyncio.get_running_loop().create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)


def _local_url() -> str:
    return "mqtt://127.0.0.1:1883"


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
