"""What operators do with things."""

import asyncio

import pytest
from msgspec.structs import replace

from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.errors import InvalidThing, NotKept, ThingExists
from thingctl_broker.security.passwords import PASSWORD_MAX, Passwords
from thingctl_broker.testing import service_with_fakes
from thingctl_broker.things.service import ThingService
from thingctl_broker.things.thing import Definition, ThingType
from thingctl_protocol.statuses import Status


class FakeStore:
    """A store that keeps records in a dict, or says that it cannot."""

    def __init__(self):
        self.full = False
        self.records = {}
        self.held = asyncio.Event()
        self.held.set()
        self._lock = asyncio.Lock()

    async def keep(self, decide, made):
        async with self._lock:
            change = decide()
            await self.held.wait()
            if self.full:
                raise NotKept("the disk is full")
            self.records[change.kept, change.name] = change.record
            made(change)


@pytest.fixture
def noted():
    return []


@pytest.fixture
def made(noted):
    service, _, _ = service_with_fakes()
    passwords, store, expelled = Passwords(), FakeStore(), []
    directory = ThingService(
        EmbeddedOperations(service),
        passwords,
        store,
        lambda thing, reason, **_: expelled.append(thing),
        lambda event, **_: noted.append(event),
    )
    yield directory, store, expelled
    passwords.close()


async def test_of_two_who_add_the_same_one_succeeds(made):
    directory, _, _ = made
    both = await asyncio.gather(
        directory.add("lamp", Definition()), directory.add("lamp", Definition()), return_exceptions=True
    )
    assert sorted(type(verdict).__name__ for verdict in both) == ["ThingExists", "tuple"]


async def test_that_a_thing_is_gone_is_kept_before_its_executions_are_withdrawn(made):
    directory, store, _ = made
    await directory.add("lamp", Definition())
    execution = await directory._operations.send("lamp", "x", b"{}", None, lambda one: one)
    store.full = True
    with pytest.raises(NotKept):
        await directory.remove("lamp")
    assert not execution.is_terminal, "the thing is still there, and runs it"
    store.full = False
    store.held.clear()
    removing = asyncio.ensure_future(directory.remove("lamp"))
    await asyncio.sleep(0)
    assert not execution.is_terminal
    store.held.set()
    await removing
    assert execution.status is Status.CANCELED


async def test_nothing_is_answered_before_it_is_kept(made):
    directory, store, _ = made
    await directory.add("lamp", Definition())
    store.full = True
    for attempt in (
        directory.put("lamp", Definition(tags=("a",))),
        directory.new_password("lamp"),
        directory.remove_password("lamp"),
        directory.remove("lamp"),
    ):
        with pytest.raises(NotKept):
            await attempt


async def test_a_thing_that_may_not_any_more_is_shown_the_door(made):
    directory, _, expelled = made
    await directory.add("lamp", Definition())
    await directory.put("lamp", Definition(tags=("a",)))
    assert expelled == []
    await directory.put("lamp", Definition(enabled=False))
    await directory.new_password("lamp", keep_old=0)
    await directory.remove_password("lamp")
    await directory.remove("lamp")
    assert expelled == ["lamp"] * 4


async def test_a_chosen_password_is_long_and_not_too_long(made):
    directory, _, _ = made
    for password in ("", "fifteen letters", "x" * (PASSWORD_MAX + 1), "ü" * PASSWORD_MAX):
        with pytest.raises(InvalidThing):
            await directory.add("lamp", Definition(), password)
    _, told = await directory.add("lamp", Definition(), "sixteen letters!")
    assert told == "sixteen letters!"
    with pytest.raises(ThingExists):
        await directory.add("lamp", Definition())


async def changes(directory):
    """Each kind of change, by a name."""
    return {
        "add": lambda: directory.add("new", Definition()),
        "put": lambda: directory.put("lamp", Definition(tags=("b",), enabled=False)),
        "put new": lambda: directory.put("new", Definition()),
        "patch": lambda: directory.patch("lamp", lambda _: Definition(description="x")),
        "password": lambda: directory.new_password("lamp"),
        "leaked": lambda: directory.new_password("lamp", keep_old=0),
        "no password": lambda: directory.remove_password("lamp"),
        "remove": lambda: directory.remove("lamp"),
        "type": lambda: directory.put_type(ThingType("light", "x")),
        "no type": lambda: directory.remove_type("light"),
    }


def state(directory):
    registry = directory.registry
    things = [(thing.name, thing.definition, thing.hashes(0.0)) for thing in registry]
    return things, dict(registry.types)


async def test_a_change_that_cannot_be_kept_is_no_change_and_can_be_repeated(made, noted):
    directory, store, expelled = made
    await directory.put_type(ThingType("light"))
    await directory.add("lamp", Definition(tags=("a",)), "the first password")
    for name, change in (await changes(directory)).items():
        before, told = state(directory), len(noted)
        store.full = True
        for _ in range(2):
            with pytest.raises(NotKept):
                await change()
        assert (state(directory), expelled, len(noted)) == (before, [], told), name
        assert await directory.authenticate("lamp", "the first password", "here")
    store.full = False
    await directory.add("new", Definition())


async def test_what_changes_while_another_is_being_kept_is_not_lost(made):
    directory, store, _ = made
    await directory.add("lamp", Definition())
    store.held.clear()
    both = [
        asyncio.ensure_future(directory.patch("lamp", lambda known: replace(known, tags=("a",)))),
        asyncio.ensure_future(directory.patch("lamp", lambda known: replace(known, description="x"))),
    ]
    await asyncio.sleep(0)
    store.held.set()
    await asyncio.gather(*both)
    assert directory.registry.get("lamp").definition == Definition(tags=("a",), description="x")


async def test_a_change_is_carried_through_when_its_caller_goes_away(made, noted):
    directory, store, _ = made
    store.held.clear()
    adding = asyncio.ensure_future(directory.put("lamp", Definition()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    adding.cancel()
    store.held.set()
    await asyncio.wait([adding, *directory._at_work])
    assert adding.cancelled()
    assert ("lamp" in directory.registry, len(noted)) == (True, 1)


async def test_an_old_password_is_valid_until_the_new_one_has_been_used(made):
    directory, store, expelled = made
    _, first = await directory.add("lamp", Definition())
    _, second = await directory.new_password("lamp")
    assert expelled == []
    assert await directory.authenticate("lamp", first, "here")
    assert await directory.authenticate("lamp", first, "here"), "also when it is remembered"
    store.full = True
    assert await directory.authenticate("lamp", second, "here"), "a full disk keeps no device out"
    assert await directory.authenticate("lamp", first, "here"), "and the old one stays"
    store.full = False
    assert await directory.authenticate("lamp", second, "here")
    assert b"previous" not in store.records["thing", "lamp"]
    assert await directory.authenticate("lamp", first, "here") is False
    assert await directory.authenticate("lamp", second, "here")


async def test_a_device_that_was_away_for_two_rotations_still_gets_in(made):
    directory, _, _ = made
    _, first = await directory.add("lamp", Definition())
    _, second = await directory.new_password("lamp")
    _, third = await directory.new_password("lamp")
    assert await directory.authenticate("lamp", first, "here")
    assert await directory.authenticate("lamp", second, "here") is False
    assert await directory.authenticate("lamp", third, "here")
    assert await directory.authenticate("lamp", first, "here") is False


async def test_an_old_password_ends_with_its_time_or_now(made, monkeypatch):
    directory, _, expelled = made
    _, first = await directory.add("lamp", Definition())
    _, second = await directory.new_password("lamp", keep_old=60)
    assert await directory.authenticate("lamp", first, "here")
    now = directory.unix()
    monkeypatch.setattr(directory, "unix", lambda: now + 60)
    assert await directory.authenticate("lamp", first, "here") is False
    _, third = await directory.new_password("lamp", keep_old=0)
    assert expelled == ["lamp"]
    assert await directory.authenticate("lamp", second, "here") is False
    assert await directory.authenticate("lamp", third, "here")
    await directory.new_password("lamp")
    await directory.remove_password("lamp")
    assert directory.registry.get("lamp").hashes(0.0) == ()
