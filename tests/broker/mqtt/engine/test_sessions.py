"""Kept sessions of clients that are away: bounded for each thing, and for all."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt.server.persistent_sessions import PersistentSessions
from thingctl_broker.mqtt.server.subscriptions import CommandSubscriptions


def filled(kept, *clients):
    return [kept.keep(client, thing, CommandSubscriptions()) for client, thing in clients]


def test_a_thing_pushes_out_its_own_oldest_and_nobody_elses():
    kept = PersistentSessions(100, 2)
    gone = filled(kept, ("lock/a", "lock"), *((f"lamp/{i}", "lamp") for i in range(5)))
    assert gone == [None, None, None, "lamp/0", "lamp/1", "lamp/2"]
    assert "lock/a" in kept
    assert len(kept) == 3


def test_who_came_back_and_left_again_is_the_youngest():
    kept = PersistentSessions(100, 2)
    filled(kept, ("a", "lamp"), ("b", "lamp"))
    given = CommandSubscriptions()
    kept.take("a")
    kept.keep("a", "lamp", given)
    assert filled(kept, ("c", "lamp")) == ["b"]
    assert kept.take("a") == ("lamp", given)
    assert kept.take("a") is None


def test_all_together_are_bounded_and_who_is_no_thing_by_that_alone():
    kept = PersistentSessions(3, 2)
    assert filled(kept, ("a", "lamp"), ("x", None), ("y", None), ("z", None)) == [None, None, None, "a"]
    assert filled(kept, ("b", "lamp")) == ["x"]


def test_a_thing_is_forgotten_as_a_whole():
    kept = PersistentSessions(100, 9)
    filled(kept, ("a", "lamp"), ("b", "lamp"), ("c", "lock"))
    kept.forget("lamp")
    kept.forget("lamp")
    assert (len(kept), "c" in kept) == (1, True)
    assert kept._things == {"lock": {"c": None}}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.sampled_from(["p", "q", None]))))
def test_the_bounds_hold_and_nothing_is_left_over(steps):
    kept, present = PersistentSessions(6, 2), {}
    for keeps, number, thing in steps:
        client = f"{thing}/{number}"
        if keeps:
            gone = kept.keep(client, thing, CommandSubscriptions())
            present[client] = thing
            present.pop(gone, None)
        else:
            found = kept.take(client)
            assert (found is not None) == (present.pop(client, 0) != 0)
        owned = Counter(present.values())
        assert len(kept) == len(present) <= 6
        assert max(owned["p"], owned["q"]) <= 2
        assert {name: list(own) for name, own in kept._things.items()}.keys() == {
            name for name in owned if name is not None
        }
