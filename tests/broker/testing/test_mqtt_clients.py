"""The clients without a server behave as those of one do."""

from __future__ import annotations

import pytest

from thingctl_broker.errors import ClientAway
from thingctl_broker.testing.mqtt_clients import InMemoryClients
from thingctl_broker.things.mqtt_clients import ClientQuery, ClientSubscription, MqttClient


@pytest.fixture
def clients():
    filters = (ClientSubscription("a/#", 1),)
    return InMemoryClients(
        [
            MqttClient(client_id="b", connected=True, version="5", session_expiry=60, filters=filters),
            MqttClient(client_id="a", connected=True, version="3.1.1"),
            MqttClient(client_id="c", connected=False, session_expiry=60),
        ]
    )


def test_pages_are_by_client_id_and_without_filters(clients):
    first, cursor = clients.select(ClientQuery(), 2)
    rest, end = clients.select(ClientQuery(), 2, cursor)
    assert ([c.client_id for c in first + rest], cursor, end) == (["a", "b", "c"], "b", None)
    assert (first[1].filters, len(clients.get("b").filters)) == ((), 1)


def test_a_kick_ends_connection_and_session_as_asked(clients):
    clients.kick("a")
    clients.kick("b")
    assert (clients.get("a"), clients.get("b").connected, clients.kicked) == (None, False, ["a", "b"])
    with pytest.raises(ClientAway):
        clients.kick("c")
    clients.kick("c", session=True)
    assert clients.get("c") is None


def test_the_figures_count_the_clients(clients):
    figures = clients.figures()
    assert (figures.connected, figures.away) == ({"3.1": 0, "3.1.1": 1, "5": 1}, 1)
