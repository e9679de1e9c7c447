"""``thingctl clients``, against a server with clients in memory."""

from __future__ import annotations

import pytest

from broker.http.api.test_mqtt_clients import DASH, LAMP, LOCK
from thingctl_broker.cli.exits import Exit


@pytest.fixture
def clients(api):
    api.clients.all = {client.client_id: client for client in (LAMP, LOCK, DASH)}
    return api.clients


def listed(ran):
    assert ran.code == 0, ran
    return [client["clientId"] for client in ran.json]


def test_the_list_is_a_table(quick, clients):
    lines = quick("clients", "list").out.splitlines()
    assert lines[0].split() == ["CLIENT", "MQTT", "ADDRESS", "SINCE", "SESSION", "WAITING", "DROPPED"]
    assert [line.split()[0] for line in lines[1:]] == ["@dash/1", "lamp/x", "lock/1"]
    assert "192.0.2.1:50000  2025-05-28 02:00:00" in lines[2]
    assert "kept 1 h 0 min  4 (4 KiB)  2" in lines[2]
    assert "away since 2025-05-28 02:00:00" in lines[3]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--thing", "lamp"), ["lamp/x 1"]),
        (("--away",), ["lock/1"]),
        (("--connected", "--text", "DASH"), ["@dash/1"]),
        (("--sort", "dropped", "-n", "1"), ["lamp/x 1"]),
        (("--sort", "waiting"), ["lamp/x 1", "@dash/1", "lock/1"]),
        (("--limit", "2"), ["@dash/1", "lamp/x 1"]),
    ],
)
def test_the_list_is_filtered(quick, clients, options, found):
    assert listed(quick("clients", "list", *options, "--json")) == found


def test_the_bare_noun_lists_and_says_when_there_is_nobody(quick, clients, api):
    assert quick("clients") == quick("clients", "list")
    assert quick("clients", "list", "--text", "nothing").err == "no such clients\n"
    api.clients.all = {}
    assert quick("clients").err == "no MQTT client is connected\n"


def test_one_client_is_shown_with_its_filters(quick, clients):
    shown = quick("clients", "show", "lamp/x 1").out.splitlines()
    assert shown[0] == "lamp/x 1: connected since 2025-05-28 02:00:00.000+02:00"
    fields = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown[1:]}
    assert fields["thing"] == "lamp"
    assert fields["mqtt"] == "5 tls"
    assert fields["keepalive"] == "60 s"
    assert fields["waits"] == "4 (4 KiB)"
    assert fields["dropped"] == "queueFull 2"
    assert fields["traffic"] == "100 B received, 200 B sent"
    assert fields["news/#"] == "QoS 2, no local, id 7"
    assert fields["$emqx/commands/things/lamp/#"] == "QoS 1, commands"
    assert quick("clients", "show", "lamp/x 1", "--json").json["filters"][1]["noLocal"] is True


def test_one_that_is_away_is_shown_with_the_end_of_its_session(quick, clients):
    out = quick("clients", "show", "lock/1").out
    assert out.startswith("lock/1: away since 2025-05-28 02:00:00.000+02:00\n")
    assert "kept 1 min 0 s, until 2025-05-28 02:01:00.000+02:00" in out
    assert "traffic" not in out


def test_a_kick_ends_the_connection_and_then_the_session(quick, clients):
    assert quick("clients", "kick", "lamp/x 1") == (0, "", "")
    assert clients.kicked == ["lamp/x 1"]
    again = quick("clients", "kick", "lamp/x 1")
    assert (again.code, "is not connected" in again.err) == (Exit.REFUSED, True)
    assert quick("clients", "kick", "lamp/x 1", "--session").code == 0
    gone = quick("clients", "kick", "lamp/x 1", "--session")
    assert gone.code == Exit.REFUSED
    assert gone.err.endswith("; to see what there is: thingctl clients list\n")
