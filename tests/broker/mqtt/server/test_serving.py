"""Which connection of a thing gets its requests: the latest that subscribed, and after it the one before."""

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.mqtt.server.serving import ServingConnections


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), max_size=40))
def test_it_is_the_latest_of_those_that_are_there(steps):
    serving, there = ServingConnections(), []
    for comes, name in steps:
        latest = there[-1] if there else None
        if comes:
            assert serving.add("lamp", name) == (name not in there)
            if name not in there:
                there.append(name)
        else:
            assert serving.remove("lamp", name) == (name == latest)
            if name in there:
                there.remove(name)
        assert serving.get("lamp") == (there[-1] if there else None)
    assert serving.get("lock") is None
    if not there:
        assert (serving._serving, serving._standing_by) == ({}, {})
