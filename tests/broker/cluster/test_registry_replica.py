"""Things and thing types that several workers share."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from support.fleet import Fleet, settled
from support.waits import eventually
from thingctl_broker.cluster import registry_replica as module
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.errors import NotAccepting, ThingExists
from thingctl_broker.security.passwords import Passwords
from thingctl_broker.things.records import Stored
from thingctl_broker.things.service import ThingService
from thingctl_broker.things.thing import Definition, ThingType
from thingctl_protocol.messages import decode_announcement

ANNOUNCEMENT = decode_announcement(b'{"actions":[{"name":"turnOn"}]}')


def tags(member, thing="lamp"):
    return member.mirror.things.get(thing).definition.tags


async def define(member, thing="lamp", *given_tags):
    member.mirror.things.define(thing, Definition(tags=given_tags), 0.0)
    await member.mirror.kept()


async def test_a_change_is_known_everywhere(one, two):
    await define(one, "lamp", "a")
    await settled()
    assert tags(two) == ("a",)
    one.mirror.things.put_type(ThingType("light"))
    one.mirror.things.define("lamp", Definition(type="light"), 0.0)
    await one.mirror.kept()
    await settled()
    assert two.mirror.things.count_of_type("light") == 1
    one.mirror.things.define("lamp", Definition(), 0.0)
    one.mirror.things.remove_type("light")
    one.mirror.things.remove("lock")
    await one.mirror.kept()
    await settled()
    assert two.mirror.things.types == {}
    assert [thing.name for thing in two.mirror.things] == ["lamp"]


async def test_one_that_starts_has_everything(fleet, one):
    one.mirror.things.connected("lamp", "c", 5.0)
    one.mirror.things.announced("lamp", ANNOUNCEMENT, 6.0)
    await one.mirror.kept()
    late = await fleet.member("late")
    lamp = late.mirror.things.get("lamp")
    assert (lamp.online, lamp.since, lamp.client_id, lamp.announcement) == (True, 5.0, "c", ANNOUNCEMENT)
    assert late.mirror.current


async def test_others_get_their_turn_while_much_is_loaded(one, monkeypatch):
    monkeypatch.setattr(module, "TURN_MAX", 10)
    for n in range(100):
        one.mirror.things.define(f"t{n}", Definition(), 0.0)
    await one.mirror.kept()
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert await one.mirror.load() >= 100
    task.cancel()
    assert turns >= 10


async def test_a_new_thing_comes_whole_in_whatever_order_its_records_are_heard_of(fleet, one, two):
    things = one.mirror.things
    things.define("new", Definition(), 0.0)
    things.connected("new", "c", 5.0)
    things.announced("new", ANNOUNCEMENT, 6.0)
    fleet.documents.listening.clear()
    await one.mirror.kept()
    for kind in ("presence", "announcement", "thing"):
        two.document_changed(kind, "new")
    await settled()
    found = two.mirror.things.get("new")
    assert (found.online, found.announcement) == (True, ANNOUNCEMENT)


async def test_other_kinds_are_not_its_business(one):
    one.mirror.document_changed("secret", "webhook")
    assert one.mirror._following == {}


async def test_an_echo_does_not_overwrite_what_is_not_written_yet(fleet, one, two):
    one.mirror.things.define("lamp", Definition(tags=("mine",)), 0.0)
    await define(two, "lamp", "theirs")
    await settled()
    assert tags(one) == ("mine",)
    await one.mirror.kept()
    await settled()
    assert tags(two) == tags(one) == ("mine",)


class Gate:
    """Documents that answer a read with what they held when they were asked, when they are let go."""

    def __init__(self, documents):
        self._documents = documents
        self.held = []
        self.holds = True

    async def _read(self, read, *args):
        found = await read(*args)
        if self.holds:
            self.held.append(asyncio.get_running_loop().create_future())
            await self.held[-1]
        return found

    async def find(self, *args):
        return await self._read(self._documents.find, *args)

    async def load(self, *args):
        return await self._read(self._documents.load, *args)

    async def put(self, *args, **kwargs):
        return await self._documents.put(*args, **kwargs)

    async def release(self):
        self.holds = False
        for held in self.held:
            held.set_result(None)
        await settled()


@pytest.fixture
def gate(one):
    one.mirror._documents = Gate(one.fleet.documents)
    return one.mirror._documents


async def test_what_was_read_before_does_not_overwrite_what_was_written_since(one, gate):
    one.mirror.document_changed("thing", "lamp")
    await settled()
    await define(one, "lamp", "mine")
    await gate.release()
    assert tags(one) == ("mine",)


async def test_what_was_read_before_does_not_overwrite_what_was_heard_of_since(one, two, gate):
    one.mirror.document_changed("thing", "lamp")
    await settled()
    await define(two, "lamp", "theirs")
    await gate.release()
    assert tags(one) == ("theirs",)


async def test_loading_does_not_undo_what_has_changed_meanwhile(one, two, gate):
    one.mirror.outdated()
    loading = asyncio.create_task(one.mirror.load())
    await settled()
    await define(two, "lamp", "theirs")
    await define(one, "lock", "mine")
    await define(one, "new")
    two.mirror.things.put_type(ThingType("light"))
    await two.mirror.kept()
    await gate.release()
    await loading
    assert (tags(one), tags(one, "lock")) == (("theirs",), ("mine",))
    assert "new" in one.mirror.things
    assert set(one.mirror.things.types) == {"light"}
    assert one.mirror.current
    assert one.mirror._changed_at == {}


async def test_what_was_missed_while_loading_is_loaded_for(one, gate):
    loading = asyncio.create_task(one.mirror.load())
    await settled()
    one.mirror.outdated()
    await gate.release()
    await loading
    assert not one.mirror.current
    await one.mirror.load()
    assert one.mirror.current


async def test_loading_again_takes_in_what_was_missed(fleet, one, two):
    fleet.documents.listening.remove(two)
    await define(one, "lamp", "a")
    one.mirror.things.remove("lock")
    one.mirror.things.put_type(ThingType("light"))
    await one.mirror.kept()
    two.mirror.things.put_type(ThingType("gone"))
    two.mirror._dirty.clear()
    two.missed()
    assert not two.mirror.current
    assert await two.mirror.load() == 1
    assert (tags(two), set(two.mirror.things.types)) == (("a",), {"light"})
    assert two.mirror.current


async def test_what_could_not_be_written_is_written_before_loading(fleet, one, two):
    fleet.down()
    with pytest.raises(StoreDown):
        await define(one, "lamp", "mine")
    fleet.down(down=False)
    await one.mirror.load()
    await settled()
    assert tags(two) == ("mine",)


async def test_a_record_that_cannot_be_read_yet_keeps_the_worker_from_accepting_until_it_is(
    fleet, one, two, monkeypatch
):
    monkeypatch.setattr(module, "READ_AGAIN", 0.01)
    fleet.documents.listening.remove(one)
    await define(two, "lamp", "theirs")
    await settled()
    fleet.documents.down = True
    with capture_logs() as logs:
        one.document_changed("thing", "lamp")
        await settled()
        await asyncio.sleep(0.03)
    assert len(logs) == 1
    assert not one.mirror.current
    with pytest.raises(NotAccepting):
        await one.send()
    fleet.documents.down = False
    await eventually(lambda: one.mirror.current)
    assert tags(one) == ("theirs",)


async def test_a_damaged_record_is_told_and_left_alone(fleet, one):
    before = tags(one)
    for damaged in (b"{", b"\xff", b'{"first_seen":"x"}'):
        fleet.documents.records["thing", "lamp"] = damaged
        with capture_logs() as logs:
            one.document_changed("thing", "lamp")
            await settled()
        assert [log["name"] for log in logs] == ["lamp"]
    assert tags(one) == before
    late = await fleet.member("late")
    assert [thing.name for thing in late.mirror.things] == ["lock"]
    assert fleet.documents.records["thing", "lamp"] == damaged


@pytest.fixture
def passwords():
    passwords = Passwords()
    yield passwords
    passwords.close()


async def test_of_two_workers_that_add_the_same_thing_the_first_ones_stands(fleet, one, two, passwords):
    directories = [ThingService(m.operations, passwords, m.mirror) for m in fleet.members]
    fleet.documents.listening.clear()
    first, _ = await directories[0].add("new", Definition(tags=("first",)))
    two.mirror.things.connected("new", "c", 1.0)  # and what else it took to be so
    with pytest.raises(ThingExists):
        await directories[1].add("new", Definition(tags=("second",)))
    two.mirror.things._things.pop("new")
    with pytest.raises(ThingExists):
        await directories[1].add("new", Definition(tags=("second",)))
    assert tags(two, "new") == ("first",)
    assert two.mirror.things.get("new").password_hash == first.password_hash
    await two.mirror.kept()
    assert b"second" not in fleet.documents.records["thing", "new"]


async def test_a_thing_that_could_not_be_kept_never_was(fleet, one, passwords):
    directory = ThingService(one.operations, passwords, one.mirror)
    fleet.down()
    with pytest.raises(StoreDown):
        await directory.add("new", Definition())
    assert "new" not in one.mirror.things
    fleet.down(down=False)
    await one.mirror.kept()
    assert ("thing", "new") not in fleet.documents.records
    await directory.add("new", Definition())


async def test_a_thing_is_removed_everywhere_with_all_that_is_its(fleet, one, two, passwords):
    directory = ThingService(one.operations, passwords, one.mirror)
    await one.incoming.announced("lamp", b'{"actions":[]}', "live")
    execution = await two.send()
    await settled()
    await directory.remove("lamp")
    await settled()
    assert "lamp" not in two.mirror.things
    assert (await two.read(execution.execution_id)).status == "CANCELED"
    assert [key for key in fleet.documents.records if key[1] == "lamp"] == []


async def test_many_changes_are_written_together(fleet, one):
    puts = []
    original = fleet.documents.put

    async def put(records, **how):
        puts.append(len(records))
        return await original(records, **how)

    fleet.documents.put = put
    for i in range(module.BATCH_MAX + 5):
        one.mirror.things.know(f"t{i}", 0.0)
    await asyncio.gather(*(one.mirror.kept() for _ in range(3)))
    assert puts == [module.BATCH_MAX, 5]


STEP = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["lamp", "lock", "door"]),
    st.sampled_from(["define", "remove", "announce", "connect", "go", "hush", "down", "up", "turn"]),
    st.integers(0, 9),
)


def change(things, what, thing, number):
    match what:
        case "define":
            things.define(thing, Definition(tags=(f"{id(things)}.{number}",)), 0.0)
        case "remove" if thing in things:
            things.remove(thing)
        case "announce":
            things.announced(thing, ANNOUNCEMENT, float(number))
        case "hush" if thing in things:
            things.announced(thing, None, float(number))
        case "connect":
            things.connected(thing, f"c{number}", float(number))
        case "go":
            things.disconnected(thing, float(number))


def check_is_as_stored(things, stored):
    # What was said by a thing at the moment of its removal may stay, and is nobody's.
    assert {thing.name for thing in things} == {name for kind, name in stored if kind == "thing"}
    for kind, name in stored:
        if name in things:
            assert things.record(kind, name) == stored.get((kind, name)), (kind, name)


async def live_through(steps):
    fleet = Fleet()
    members = [await fleet.member(enrols=True) for _ in range(2)]
    tasks = []
    for which, thing, what, number in steps:
        if what in {"down", "up"}:
            fleet.down(down=what == "down")
        elif what == "turn":
            for _ in range(number):
                await asyncio.sleep(0)
        else:
            change(members[which].mirror.things, what, thing, number)
        tasks.append(asyncio.create_task(members[which].mirror.kept()))
    await settled()
    fleet.down(down=False)
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(2):
        for member in members:
            await member.mirror.load()
        await settled()
    for member in members:
        check_is_as_stored(member.mirror.things, fleet.documents.records)
    await fleet.stop()


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_workers_agree_with_the_store_in_the_end(steps):
    """Whatever they change, at once or while the store is away: when all is quiet, all are the same."""
    asyncio.run(live_through(steps))


async def test_changes_of_two_workers_to_one_thing_are_both_made(fleet, one, two, passwords):
    directories = [ThingService(m.operations, passwords, m.mirror) for m in fleet.members]
    await directories[0].add("new", Definition())
    await settled()
    fleet.documents.listening.clear()  # neither hears of the other
    _, password = await directories[0].new_password("new")
    await directories[1].patch("new", lambda known: replace(known, tags=("a",)))
    _, latest = await directories[0].new_password("new", keep_old=0)
    assert tags(two, "new") == tags(one, "new") == ("a",)
    assert await directories[1].authenticate("new", password, "here")
    assert await directories[0].authenticate("new", latest, "here")
    assert one.mirror.things.record(Stored.THING, "new") == fleet.documents.records["thing", "new"]


async def test_a_sign_in_at_one_worker_ends_the_old_password_at_all(fleet, one, two, passwords):
    directories = [ThingService(m.operations, passwords, m.mirror) for m in fleet.members]
    _, first = await directories[0].add("new", Definition())
    _, second = await directories[0].new_password("new")
    await settled()
    assert await directories[1].authenticate("new", first, "here")
    assert await directories[1].authenticate("new", second, "here")
    await settled()
    assert await directories[0].authenticate("new", first, "here") is False
    assert b"previous" not in fleet.documents.records["thing", "new"]


async def test_what_was_refused_and_written_all_the_same_is_undone(fleet, one, two, passwords):
    directory = ThingService(one.operations, passwords, one.mirror)
    _, first = await directory.add("old", Definition())
    put = fleet.documents.put

    async def lost(*args, **how):
        await put(*args, **how)
        raise StoreDown("the connection was lost", uncertain=True)

    fleet.documents.put = lost
    for attempt in (directory.add("new", Definition()), directory.new_password("old", keep_old=0)):
        with pytest.raises(StoreDown):
            await attempt
    fleet.documents.put = put
    await directory.add("new", Definition())
    assert await directory.authenticate("old", first, "here")
    await settled()
    assert {member.mirror.things.record(Stored.THING, "old") for member in fleet.members} == {
        fleet.documents.records["thing", "old"]
    }


async def test_a_store_that_is_away_changes_nothing(fleet, one, passwords):
    directory = ThingService(one.operations, passwords, one.mirror)
    await directory.add("new", Definition())
    fleet.down()
    before = one.mirror.things.record(Stored.THING, "new")
    for attempt in (
        directory.put("new", Definition(enabled=False)),
        directory.new_password("new", keep_old=0),
        directory.remove_password("new"),
        directory.remove("new"),
        directory.put_type(ThingType("light")),
    ):
        with pytest.raises(StoreDown):
            await attempt
    assert one.mirror.things.record(Stored.THING, "new") == before
    assert one.mirror.things.types == {}
    fleet.down(down=False)
    await one.mirror.kept()
    assert fleet.documents.records["thing", "new"] == before
