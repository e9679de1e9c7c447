"""What operators do with things."""

import asyncio

import pytest

from thingctl_broker.directory import Directory
from thingctl_broker.embedded import EmbeddedOperations
from thingctl_broker.errors import InvalidThing, NotKept, ThingExists
from thingctl_broker.passwords import PASSWORD_MAX, Passwords
from thingctl_broker.testing import service_with_fakes
from thingctl_broker.things import Definition
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
    directory = Directory(
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
