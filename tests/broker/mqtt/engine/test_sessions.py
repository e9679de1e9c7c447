"""Sessions of clients that are away: bounded for each thing, and for all."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.sessions import Sessions
from thingctl_broker.mqtt.server.limits import MqttLimits


def session(client_id, thing):
    return Engine(MqttLimits()).new_session(client_id, owner=None, thing=thing)


def fill(sessions, *clients):
    """Have the clients go away, one after the other; return the ids of those that ended for it."""
    gone = []
    for client_id, thing in clients:
        sessions.add(leaving := session(client_id, thing))
        displaced = sessions.leave(leaving)
        if displaced is not None:
            sessions.remove(displaced)
        gone.append(displaced and displaced.client_id)
    return gone


def test_a_thing_displaces_its_own_oldest_and_no_other():
    sessions = Sessions(100, 2)
    gone = fill(sessions, ("lock/a", "lock"), *((f"lamp/{i}", "lamp") for i in range(5)))
    assert gone == [None, None, None, "lamp/0", "lamp/1", "lamp/2"]
    assert sessions.get("lock/a") is not None
    assert (len(sessions), sessions.away) == (3, 3)


def test_one_that_came_back_and_left_again_is_the_youngest():
    sessions = Sessions(100, 2)
    fill(sessions, ("a", "lamp"), ("b", "lamp"))
    back = sessions.get("a")
    sessions.come_back(back)
    assert sessions.away == 1
    sessions.leave(back)
    assert fill(sessions, ("c", "lamp")) == ["b"]


def test_all_together_are_bounded_and_a_client_that_is_no_thing_by_that_alone():
    sessions = Sessions(3, 2)
    assert fill(sessions, ("a", "lamp"), ("x", None), ("y", None), ("z", None)) == [None, None, None, "a"]
    assert fill(sessions, ("b", "lamp")) == ["x"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.sampled_from(["p", "q", None]))))
def test_the_bounds_hold_and_nothing_is_left_over(steps):
    sessions, away = Sessions(6, 2), {}
    for leaves, number, thing in steps:
        client_id = f"{thing}/{number}"
        known = sessions.get(client_id)
        if leaves:
            if known is None:
                sessions.add(known := session(client_id, thing))
            displaced = sessions.leave(known)
            away[client_id] = thing
            if displaced is not None:
                sessions.remove(displaced)
                del away[displaced.client_id]
        elif known is not None:
            sessions.come_back(known)
            away.pop(client_id, None)
        owned = Counter(away.values())
        assert sessions.away == len(away) <= 6
        assert max(owned["p"], owned["q"]) <= 2
        assert set(sessions._things) == {name for name in owned if name is not None}
