"""The things and types that the broker knows, and what is kept of them."""

import pytest

from thingctl_broker.errors import InvalidThing, TypeInUse, UnknownThing, UnknownThingType
from thingctl_broker.things.records import Stored
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.thing import Definition, ThingQuery, ThingType
from thingctl_protocol.messages import ActionDescription, Announcement

ANNOUNCEMENT = Announcement("1.0", (ActionDescription("turnOn", params_schema={"type": "object"}),))


def names(found):
    return [thing.name for thing in found[0]]


def test_a_thing_is_known_once_it_has_connected():
    things = ThingRegistry()
    assert things.get("lamp") is None
    things.connected("lamp", "client-7", 10.0)
    thing = things.get("lamp")
    assert (thing.name, thing.online, thing.client_id) == ("lamp", True, "client-7")
    assert (thing.first_seen, thing.last_seen, thing.since) == (10.0, 10.0, 10.0)
    assert list(things) == [thing]
    assert len(things) == 1


def test_a_thing_that_goes_stays_known():
    things = ThingRegistry()
    things.connected("lamp", "a", 10.0)
    things.disconnected("lamp", 20.0)
    thing = things.get("lamp")
    assert (thing.online, thing.first_seen, thing.last_seen, thing.since) == (False, 10.0, 20.0, 20.0)
    things.connected("lamp", "b", 30.0)
    assert things.get("lamp") is thing
    assert (thing.online, thing.client_id, thing.first_seen, thing.since) == (True, "b", 10.0, 30.0)


def test_a_second_connection_does_not_make_it_newly_online():
    things = ThingRegistry()
    things.connected("lamp", "a", 10.0)
    things.connected("lamp", "b", 20.0)
    assert things.get("lamp").since == 10.0


def test_to_know_a_thing_is_not_to_say_that_it_is_there():
    things = ThingRegistry()
    thing = things.know("lamp", 5.0)
    assert (thing.online, thing.last_seen, thing.since) == (False, None, None)
    assert things.know("lamp", 9.0) is thing
    assert thing.first_seen == 5.0


def test_the_going_of_an_unknown_thing_makes_none():
    things = ThingRegistry()
    things.disconnected("lamp", 1.0)
    assert len(things) == 0


def test_an_announcement_is_kept_until_it_is_withdrawn():
    things = ThingRegistry()
    things.announced("lamp", ANNOUNCEMENT, 10.0)
    assert things.get("lamp").announcement == ANNOUNCEMENT
    things.announced("lamp", None, 20.0)
    assert things.get("lamp").announcement is None
    assert things.get("lamp").last_seen == 20.0


def test_a_definition_replaces_the_one_before_and_nothing_else():
    things = ThingRegistry()
    things.put_type(ThingType("light"))
    things.connected("lamp", "a", 10.0)
    things.set_password_hash("lamp", "$argon2id$…")
    thing = things.define("lamp", Definition("light", ("b", "a", "b"), "In the hall", enabled=False), 20.0)
    assert thing is things.get("lamp")
    assert thing.definition == Definition("light", ("a", "b"), "In the hall", enabled=False)
    assert (thing.online, thing.first_seen, thing.password_hash) == (True, 10.0, "$argon2id$…")
    assert not thing.enabled


@pytest.mark.parametrize(
    ("name", "definition", "pointer"),
    [
        ("", Definition(), "/name"),
        ("a/b", Definition(), "/name"),
        ("a+b", Definition(), "/name"),
        ("#", Definition(), "/name"),
        ("a\0", Definition(), "/name"),
        ("x" * 129, Definition(), "/name"),
        ("café", Definition(), "/name"),
        ("cafe\u0301", Definition(), "/name"),
        ("a\n", Definition(), "/name"),
        ("lamp", Definition("nosuch"), "/type"),
        ("lamp", Definition(tags=("a", "b c")), "/tags/1"),
    ],
)
def test_what_cannot_be_a_thing_is_refused_where_it_is_wrong(name, definition, pointer):
    things = ThingRegistry()
    with pytest.raises(InvalidThing) as raised:
        things.define(name, definition, 0.0)
    assert raised.value.pointer == pointer
    assert len(things) == 0


def test_a_removed_thing_is_unknown():
    things = ThingRegistry()
    things.define("lamp", Definition(), 0.0)
    things.remove("lamp")
    assert things.get("lamp") is None
    with pytest.raises(UnknownThing):
        things.remove("lamp")
    with pytest.raises(UnknownThing):
        things.set_password_hash("lamp", "")


def test_things_are_found_by_tag_type_presence_and_sight():
    things = ThingRegistry()
    things.put_type(ThingType("light"))
    things.put_type(ThingType("door"))
    things.define("a", Definition("light", ("hall", "floor:1")), 0.0)
    things.define("b", Definition("light", ("hall",)), 0.0)
    things.define("c", Definition("door", ("hall",)), 0.0)
    things.define("d", Definition(), 0.0)
    things.connected("b", "", 1.0)
    assert names(things.select(ThingQuery(), 9)) == ["a", "b", "c", "d"]
    assert names(things.select(ThingQuery(tags=("hall",)), 9)) == ["a", "b", "c"]
    assert names(things.select(ThingQuery(tags=("hall", "floor:1")), 9)) == ["a"]
    assert names(things.select(ThingQuery(type="light"), 9)) == ["a", "b"]
    assert names(things.select(ThingQuery(type="nosuch"), 9)) == []
    assert names(things.select(ThingQuery(online=True), 9)) == ["b"]
    assert names(things.select(ThingQuery(type="light", online=False), 9)) == ["a"]
    assert names(things.select(ThingQuery(visible=lambda name: name > "b"), 9)) == ["c", "d"]
    assert things.select(ThingQuery(), 2)[1] == "b"
    assert names(things.select(ThingQuery(), 2, "b")) == ["c", "d"]
    assert things.select(ThingQuery(), 2, "b")[1] is None
    # A thing that changes its type leaves the old one's list.
    things.define("a", Definition("door"), 0.0)
    assert names(things.select(ThingQuery(type="light"), 9)) == ["b"]
    assert things.count_of_type("door") == 2
    things.remove("c")
    assert names(things.select(ThingQuery(type="door"), 9)) == ["a"]


def test_a_type_that_things_are_of_stays():
    things = ThingRegistry()
    things.put_type(ThingType("light"))
    things.define("lamp", Definition("light"), 0.0)
    with pytest.raises(TypeInUse):
        things.remove_type("light")
    things.define("lamp", Definition(), 0.0)
    things.remove_type("light")
    with pytest.raises(UnknownThingType):
        things.need_type("light")


def test_what_is_kept_makes_the_same_registry_again_but_nobody_is_online():
    changed = []
    things = ThingRegistry(changed=lambda kept, name: changed.append((kept, name)))
    things.put_type(ThingType("light", "Lights", ANNOUNCEMENT.actions))
    things.define("lamp", Definition("light", ("hall",), "In the hall"), 5.0)
    things.set_password_hash("lamp", "$argon2id$…")
    things.connected("lamp", "c1", 10.0)
    things.announced("lamp", ANNOUNCEMENT, 11.0)
    things.define("gone", Definition(), 12.0)
    things.remove("gone")
    records = [
        (kept, name, record) for kept, name in dict.fromkeys(changed) if (record := things.record(kept, name))
    ]
    assert {(kept, name) for kept, name, _ in records} == {
        (Stored.TYPE, "light"),
        (Stored.THING, "lamp"),
        (Stored.PRESENCE, "lamp"),
        (Stored.ANNOUNCEMENT, "lamp"),
    }
    again = ThingRegistry()
    assert again.restore(records) == 1
    assert again.types == things.types
    lamp = again.get("lamp")
    assert lamp.definition == Definition("light", ("hall",), "In the hall")
    assert (lamp.password_hash, lamp.announcement, lamp.client_id) == ("$argon2id$…", ANNOUNCEMENT, "c1")
    assert (lamp.first_seen, lamp.last_seen, lamp.online) == (5.0, 11.0, False)
    assert names(again.select(ThingQuery(type="light"), 9)) == ["lamp"]


def test_things_that_announce_the_same_hold_it_once():
    things = ThingRegistry()
    for name in ("lamp", "lock", "door"):
        things.know(name, 1.0)
    things.announced("lamp", ANNOUNCEMENT, 1.0)
    record = things.record(Stored.ANNOUNCEMENT, "lamp")
    things.mirror(Stored.ANNOUNCEMENT, "lock", bytes(bytearray(record)))
    other = Announcement("1.0", (ActionDescription("turnOn", params_schema={"type": "object"}),))
    things.announced("door", other, 2.0)
    held = {id(things.get(name).announcement) for name in ("lamp", "lock", "door")}
    assert len(held) == 1
    assert things.get("lamp").announcement == ANNOUNCEMENT
    things.announced("door", Announcement("2.0"), 3.0)
    assert things.get("lock").announcement == ANNOUNCEMENT


def test_a_record_of_an_older_version_is_read_and_written_as_it_was():
    record = b'{"first_seen":1.0,"definition":{"tags":["a"]},"password_hash":"$argon2id$old"}'
    registry = ThingRegistry()
    registry.restore([(Stored.THING, "lamp", record)])
    assert registry.get("lamp").hashes(5.0) == ("$argon2id$old",)
    assert registry.record(Stored.THING, "lamp") == record


def test_an_old_password_is_kept_with_its_time():
    registry = ThingRegistry()
    registry.define("lamp", Definition(), 1.0)
    for password_hash, keep_old in (("one", None), ("two", 10)):
        registry.apply(registry.renewing("lamp", password_hash, 5.0, keep_old))
    again = ThingRegistry()
    again.restore([(Stored.THING, "lamp", registry.record(Stored.THING, "lamp"))])
    assert (again.get("lamp").hashes(14.9), again.get("lamp").hashes(15.0)) == (("two", "one"), ("two",))
    again.apply(again.proving("lamp", "one"))
    assert again.get("lamp").hashes(5.0) == ("two", "one"), "that was not the new one"
    again.apply(again.proving("lamp", "two"))
    assert again.get("lamp").hashes(5.0) == ("two",)
