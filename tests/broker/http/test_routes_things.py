"""The endpoints of things, over the real server."""

from __future__ import annotations

THINGS = "/api/v1/things"


def test_a_thing_shows_its_presence(api):
    api.connect("lamp")
    api.clock.advance(1.5)
    api.call(api.service.announce, "lamp", b'{"agentVersion":"0.1","actions":[{"name":"turnOn"}]}')
    shown = api.get(f"{THINGS}/lamp").json
    assert shown == {
        "name": "lamp",
        "online": True,
        "firstSeen": "2025-05-28T00:00:00.000Z",
        "lastSeen": "2025-05-28T00:00:01.500Z",
        "clientId": "client-of-lamp",
        "agentVersion": "0.1",
        "actions": ["turnOn"],
        "announcement": {"agentVersion": "0.1", "actions": [{"name": "turnOn"}]},
    }
    api.call(api.service.disconnected, "lamp")
    assert api.get(f"{THINGS}/lamp").json["online"] is False


def test_things_are_listed_by_name_without_their_schemas(api):
    api.call(api.service.announce, "lamp", b'{"actions":[{"name":"turnOn","paramsSchema":{}}]}')
    page = api.get(THINGS).json
    assert [thing["name"] for thing in page["things"]] == ["lamp", "lock"]
    assert page["things"][0]["actions"] == ["turnOn"]
    assert "announcement" not in page["things"][0]
    assert page["nextCursor"] is None


def test_cursors_walk_every_thing_exactly_once(api):
    names = {f"t{i:03d}" for i in range(100)} | {"lamp", "lock"}
    for name in names:
        api.call(api.service.things.know, name, 0.0)
    for limit in (1, 7, 51, 102):
        walked = []
        cursor = ""
        while cursor is not None:
            page = api.get(f"{THINGS}?limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json
            walked += [thing["name"] for thing in page["things"]]
            cursor = page["nextCursor"]
        assert walked == sorted(names)
