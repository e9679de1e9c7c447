"""Which clients a query admits."""

from __future__ import annotations

import pytest

from thingctl_broker.things.mqtt_clients import ClientQuery, ClientSort, MqttClient

LAMP = ("lamp/x1", "lamp", "lamp")
BACKEND = ("@dash/1", "@dash", None)


@pytest.mark.parametrize(
    ("query", "lamp", "backend"),
    [
        (ClientQuery(), True, True),
        (ClientQuery(thing="lamp"), True, False),
        (ClientQuery(thing="lock"), False, False),
        (ClientQuery(connected=True), True, True),
        (ClientQuery(connected=False), False, False),
        (ClientQuery(text="X1"), True, False),
        (ClientQuery(text="DASH"), False, True),
        (ClientQuery(visible="lamp".__eq__), True, False),
        (ClientQuery(visible="lock".__eq__), False, False),
    ],
)
def test_a_query_admits_what_it_asks_for(query, lamp, backend):
    assert query.admits(*LAMP, connected=True) is lamp
    assert query.admits(*BACKEND, connected=True) is backend


def test_a_client_without_a_user_name_is_found_by_its_id():
    assert ClientQuery(text="b").admits("abc", None, None, connected=True)
    assert not ClientQuery(text="x").admits("abc", None, None, connected=True)


@pytest.mark.parametrize(
    ("sort", "cursor"),
    [(ClientSort.CLIENT_ID, "a/b"), (ClientSort.WAITING_BYTES, "70/a/b"), (ClientSort.DROPPED, "3/a/b")],
)
def test_a_cursor_names_the_place_of_its_client(sort, cursor):
    query = ClientQuery(sort=sort)
    client = MqttClient(
        client_id="a/b", connected=True, waiting_bytes=70, dropped={"expired": 1, "queueFull": 2}
    )
    assert query.cursor(client) == cursor
    assert query.start(cursor) == query.place("a/b", 70, 3)
    assert query.start("") is None


@pytest.mark.parametrize("cursor", ["a", "x/a", "-1/a", "/a", "1" * 19 + "/a"])
def test_a_cursor_of_another_order_is_none(cursor):
    with pytest.raises(ValueError, match=cursor):
        ClientQuery(sort=ClientSort.DROPPED).start(cursor)


def test_the_most_come_first_and_then_the_ids():
    query = ClientQuery(sort=ClientSort.WAITING_BYTES)
    places = [query.place("b", 0, 9), query.place("c", 5, 0), query.place("a", 0, 0), query.place("d", 9, 0)]
    assert [place.client_id for place in sorted(places)] == ["d", "c", "a", "b"]
