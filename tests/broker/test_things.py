"""What the broker knows of its things."""

from thingctl_broker.things import ThingRegistry
from thingctl_protocol.messages import Announcement


def test_a_thing_is_known_once_it_has_connected():
    things = ThingRegistry()
    assert things.get("lamp") is None
    things.connected("lamp", "client-7", 10.0)
    thing = things.get("lamp")
    assert (thing.name, thing.online, thing.client_id) == ("lamp", True, "client-7")
    assert (thing.first_seen, thing.last_seen) == (10.0, 10.0)
    assert list(things) == [thing]
    assert len(things) == 1


def test_a_thing_that_goes_stays_known():
    things = ThingRegistry()
    things.connected("lamp", "a", 10.0)
    things.disconnected("lamp", 20.0)
    thing = things.get("lamp")
    assert (thing.online, thing.first_seen, thing.last_seen) == (False, 10.0, 20.0)
    things.connected("lamp", "b", 30.0)
    assert things.get("lamp") is thing
    assert (thing.online, thing.client_id, thing.first_seen) == (True, "b", 10.0)


def test_to_know_a_thing_is_not_to_say_that_it_is_there():
    things = ThingRegistry()
    thing = things.know("lamp", 5.0)
    assert not thing.online
    assert things.know("lamp", 9.0) is thing
    assert thing.first_seen == 5.0


def test_the_going_of_an_unknown_thing_makes_none():
    things = ThingRegistry()
    things.disconnected("lamp", 1.0)
    assert len(things) == 0


def test_an_announcement_is_kept_until_it_is_withdrawn():
    things = ThingRegistry()
    announcement = Announcement("1.0")
    things.announced("lamp", announcement, 10.0)
    assert things.get("lamp").announcement is announcement
    things.announced("lamp", None, 20.0)
    assert things.get("lamp").announcement is None
    assert things.get("lamp").last_seen == 20.0
