"""The endpoints of things, over the real server."""

from __future__ import annotations

import json

import pytest

from broker.http.test_problems import check_problem
from thingctl_broker.errors import NoDeviceUrl
from thingctl_broker.http import problems
from thingctl_broker.things.enrolment import Enrolment
from thingctl_protocol.bundle import decode_bundle, encode_bundle

THINGS = "/api/v1/things"
TYPES = "/api/v1/thing-types"
COMMANDS = "/api/v1/commands"
NUMBER = {"type": "object", "required": ["value"], "properties": {"value": {"type": "number", "maximum": 30}}}


def announce(api, thing, *actions):
    import json

    payload = json.dumps({"agentVersion": "0.1", "actions": list(actions)}).encode()
    api.call(api.service.announce, thing, payload)


def test_a_thing_shows_its_presence(api):
    api.connect("lamp")
    api.clock.advance(1.5)
    announce(api, "lamp", {"name": "turnOn"})
    shown = api.get(f"{THINGS}/lamp").json
    assert shown == {
        "name": "lamp",
        "enabled": True,
        "online": True,
        "tags": [],
        "hasPassword": False,
        "since": "2025-05-28T00:00:00.000Z",
        "firstSeen": "2025-05-28T00:00:00.000Z",
        "lastSeen": "2025-05-28T00:00:01.500Z",
        "clientId": "client-of-lamp",
        "agentVersion": "0.1",
        "actions": ["turnOn"],
        "announcement": {"agentVersion": "0.1", "actions": [{"name": "turnOn"}]},
    }
    api.call(api.service.disconnected, "lamp")
    shown = api.get(f"{THINGS}/lamp").json
    assert (shown["online"], shown["since"]) == (False, "2025-05-28T00:00:01.500Z")


def test_a_thing_whose_session_was_taken_shows_how_often(api):
    api.connect("lamp")
    for _ in range(2):
        api.call(api.service.things.taken_over, "lamp")
    assert api.get(f"{THINGS}/lamp").json["takeovers"] == 2


def test_things_are_listed_by_name_without_their_schemas(api):
    announce(api, "lamp", {"name": "turnOn", "paramsSchema": {}})
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
            assert page["things"]  # also the last page has some
            walked += [thing["name"] for thing in page["things"]]
            cursor = page["nextCursor"]
        assert walked == sorted(names)


def test_things_are_filtered_by_tag_type_and_presence(api):
    api.request("PUT", f"{TYPES}/light", {})
    api.request("PUT", f"{THINGS}/lamp", {"type": "light", "tags": ["hall", "floor:1"]})
    api.request("PUT", f"{THINGS}/lock", {"tags": ["hall"]})
    api.connect("lock")

    def found(query):
        return [thing["name"] for thing in api.get(f"{THINGS}?{query}").json["things"]]

    assert found("tag=hall") == ["lamp", "lock"]
    assert found("tag=hall&tag=floor:1") == ["lamp"]
    assert found("type=light") == ["lamp"]
    assert found("online=true") == ["lock"]
    assert found("online=false&tag=hall") == ["lamp"]
    assert found("tag=nosuch") == []
    check_problem(api.get(f"{THINGS}?online=yes"), problems.INVALID_PARAMETER, parameter="online")
    check_problem(api.get(f"{THINGS}?tag=a%20b"), problems.INVALID_PARAMETER, parameter="tag")
    check_problem(api.get(f"{THINGS}?type=a/b"), problems.INVALID_PARAMETER, parameter="type")


def test_put_adds_a_thing_and_replaces_what_is_said_of_it(api):
    reply = api.request("PUT", f"{THINGS}/new", {"tags": ["b", "a"], "description": "Grüße"})
    assert (reply.status, reply.link) == (201, f"{THINGS}/new")
    assert (reply.json["tags"], reply.json["description"]) == (["a", "b"], "Grüße")
    assert reply.json["hasPassword"] is False
    reply = api.request("PUT", f"{THINGS}/new", {"tags": ["c"]})
    assert (reply.status, reply.json["tags"]) == (200, ["c"])
    assert "description" not in reply.json
    assert "location" not in reply.headers


def test_patch_changes_only_what_it_names(api):
    api.request("PUT", f"{TYPES}/light", {})
    api.request("PUT", f"{THINGS}/lamp", {"type": "light", "tags": ["a"], "description": "d"})
    changed = api.request("PATCH", f"{THINGS}/lamp", {"description": "e"}).json
    assert (changed["type"], changed["tags"], changed["description"]) == ("light", ["a"], "e")
    changed = api.request("PATCH", f"{THINGS}/lamp", {"type": None, "tags": None, "enabled": False}).json
    assert "type" not in changed
    assert (changed["tags"], changed["description"], changed["enabled"]) == ([], "e", False)
    assert api.request("PATCH", f"{THINGS}/lamp", {"enabled": True}).json["enabled"] is True
    check_problem(api.request("PATCH", f"{THINGS}/nosuch", {}), problems.UNKNOWN_THING)


def test_post_adds_a_thing_and_tells_its_password_once(api):
    reply = api.post(THINGS, {"name": "new"})
    assert reply.status == 201
    credentials = reply.json["credentials"]
    assert credentials["username"] == "new"
    assert len(credentials["password"]) >= 32
    assert credentials["password"] not in str(api.get(f"{THINGS}/new").content)
    kept = api.service.things.get("new").password_hash
    assert kept.startswith("$argon2id$")
    assert credentials["password"] not in kept
    check_problem(api.post(THINGS, {"name": "new"}), problems.ALREADY_EXISTS)
    other = api.post(f"{THINGS}/new/password").json["credentials"]["password"]
    assert other != credentials["password"]
    chosen = api.post(f"{THINGS}/new/password", {"password": "sixteen letters!"}).json["credentials"]
    assert chosen == {"username": "new", "password": "sixteen letters!"}
    assert api.request("DELETE", f"{THINGS}/new/password").status == 204
    assert api.get(f"{THINGS}/new").json["hasPassword"] is False
    check_problem(
        api.post(THINGS, {"name": "x", "password": "short"}), problems.INVALID_BODY, pointer="/password"
    )
    check_problem(api.post(f"{THINGS}/nosuch/password"), problems.UNKNOWN_THING)


def test_a_removed_thing_takes_no_commands_and_what_waits_for_it_is_withdrawn(api):
    waiting = api.send("lamp")
    reply = api.request("DELETE", f"{THINGS}/lamp")
    assert (reply.status, reply.content) == (204, b"")
    assert "content-length" not in reply.headers
    assert api.get(f"{COMMANDS}/{waiting['executionId']}").json["status"] == "CANCELED"
    check_problem(api.get(f"{THINGS}/lamp"), problems.UNKNOWN_THING)
    check_problem(api.request("DELETE", f"{THINGS}/lamp"), problems.UNKNOWN_THING)
    check_problem(
        api.post(COMMANDS, {"thingId": "lamp", "action": "x"}), problems.UNKNOWN_THING, pointer="/thingId"
    )


def test_a_disabled_thing_takes_no_commands(api):
    api.request("PATCH", f"{THINGS}/lamp", {"enabled": False})
    check_problem(api.post(COMMANDS, {"thingId": "lamp", "action": "x"}), problems.THING_DISABLED)
    check_problem(
        api.post(f"{COMMANDS}?validate=only", {"thingId": "lamp", "action": "x"}), problems.THING_DISABLED
    )
    api.request("PATCH", f"{THINGS}/lamp", {"enabled": True})
    api.send("lamp")


@pytest.mark.parametrize(
    "name",
    [
        "a%2Fb",
        "a%2F..%2Fb",
        "%2e%2e%2fb",
        "a+b",
        "a%23",
        "a%00b",
        "x" * 129,
        "caf%C3%A9",
        "cafe%CC%81",
        "a%20b",
    ],
)
def test_tricks_in_the_path_name_no_thing(api, name):
    before = len(api.service.things)
    reply = api.request("PUT", f"{THINGS}/{name}", {})
    assert reply.status in {400, 404}, reply
    assert api.get(f"{THINGS}/{name}").status == 404
    assert api.request("DELETE", f"{THINGS}/{name}").status == 404
    assert len(api.service.things) == before


@pytest.mark.parametrize("name", [".", ".."])
def test_dots_are_a_name_like_any_other_and_lead_nowhere(api, name):
    """They stand in a topic or a URL's last part as they are: nothing here resolves paths."""
    assert api.request("PUT", f"{THINGS}/{name}", {}).json["name"] == name
    assert api.request("DELETE", f"{THINGS}/{name}").status == 204


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "nosuch"}, "/type"),
        ({"tags": ["a b"]}, "/tags/0"),
        ({"description": "a\nb"}, "/description"),
        ({"colour": "red"}, "/colour"),
        ({"enabled": "yes"}, "/enabled"),
    ],
)
def test_what_cannot_be_said_of_a_thing(api, body, pointer):
    for method in ("PUT", "PATCH"):
        check_problem(api.request(method, f"{THINGS}/lamp", body), problems.INVALID_BODY, pointer=pointer)


def test_params_are_checked_against_what_the_thing_announced(api):
    announce(api, "lamp", {"name": "dim", "paramsSchema": NUMBER})
    bad = {"thingId": "lamp", "action": "dim", "params": {"value": 31}}
    for target in (COMMANDS, f"{COMMANDS}?validate=only"):
        detail = check_problem(api.post(target, bad), problems.INVALID_BODY, pointer="/params/value")
        assert detail == "by what the thing announced: 31 is greater than the maximum of 30"
        check_problem(api.post(target, bad | {"params": {}}), problems.INVALID_BODY, pointer="/params")
    assert len(api.service.table) == 0
    dry = api.post(f"{COMMANDS}?validate=only", bad | {"params": {"value": 30}})
    assert (dry.status, dry.json) == (200, {"valid": True, "checkedBy": ["by what the thing announced"]})
    assert len(api.service.table) == 0
    api.send("lamp", "dim", params={"value": 30})
    api.send("lamp", "whatever", params={"value": 31})  # nobody said what that takes
    announce(api, "lamp", {"name": "dim"})
    api.send("lamp", "dim", params={"value": 31})


def test_params_are_checked_against_the_type_and_drift_is_shown(api):
    actions = [{"name": "dim", "paramsSchema": NUMBER}, {"name": "blink"}]
    api.request("PUT", f"{TYPES}/light", {"actions": actions})
    api.request("PUT", f"{THINGS}/lamp", {"type": "light"})
    bad = {"thingId": "lamp", "action": "dim", "params": {"value": 31}}
    detail = check_problem(api.post(COMMANDS, bad), problems.INVALID_BODY, pointer="/params/value")
    assert detail.startswith("by the type 'light'")
    check_problem(
        api.post(COMMANDS, {"thingId": "lamp", "action": "nosuch"}), problems.INVALID_BODY, pointer="/action"
    )
    assert "drift" not in api.get(f"{THINGS}/lamp").json
    lower = NUMBER | {"properties": {"value": {"type": "number", "maximum": 10, "title": "Brightness"}}}
    announce(api, "lamp", {"name": "dim", "paramsSchema": lower}, {"name": "reboot"})
    assert api.get(f"{THINGS}/lamp").json["drift"] == [
        {"action": "blink", "difference": "notAnnounced"},
        {"action": "dim", "difference": "params"},
        {"action": "reboot", "difference": "notInType"},
    ]
    # Both must agree: the device would refuse what it does not take.
    check_problem(
        api.post(COMMANDS, bad | {"params": {"value": 20}}), problems.INVALID_BODY, pointer="/params/value"
    )
    api.send("lamp", "dim", params={"value": 10})
    api.send("lamp", "reboot")
    # The type changes: what was compiled for it goes.
    api.request("PATCH", f"{TYPES}/light", {"actions": [{"name": "dim"}]})
    check_problem(
        api.post(COMMANDS, bad | {"params": {"value": 20}}), problems.INVALID_BODY, pointer="/params/value"
    )
    announce(api, "lamp", {"name": "dim"})
    api.send("lamp", "dim", params={"value": 20})


def test_a_hostile_announcement_is_not_enforced_and_said_so(api):
    announce(
        api,
        "lamp",
        {"name": "dim", "paramsSchema": {"$ref": "http://127.0.0.1:9/x"}},
        {"name": "x", "paramsSchema": {"$ref": "#"}},
    )
    api.send("lamp", "dim", params={"value": 31})
    api.send("lamp", "x")
    assert api.get(f"{THINGS}/lamp").json["schemaFaults"] == [
        {"action": "dim", "fault": "a reference stays within the schema: #/$defs/…", "pointer": "/$ref"},
        {"action": "x", "fault": "a schema that refers to itself", "pointer": "/$ref"},
    ]


def test_validate_takes_one_word_only(api):
    body = {"thingId": "lamp", "action": "x"}
    check_problem(
        api.post(f"{COMMANDS}?validate=yes", body), problems.INVALID_PARAMETER, parameter="validate"
    )
    check_problem(
        api.post(f"{COMMANDS}?validate=only", body | {"ttl": 0}), problems.INVALID_BODY, pointer="/ttl"
    )
    check_problem(
        api.post(f"{COMMANDS}?validate=only", body | {"thingId": "nosuch"}),
        problems.UNKNOWN_THING,
        pointer="/thingId",
    )


def test_how_devices_reach_the_broker(api):
    found = api.get("/api/v1/enrolment")
    assert (found.status, found.json) == (
        200,
        {"mqttUrl": "mqtt://127.0.0.1:1883", "topicRoot": "$emqx/commands", "open": False},
    )


def unreachable():
    raise NoDeviceUrl("set mqtt.public_url")


def test_without_an_address_a_bundle_that_is_needed_is_refused_before_anything_changes(api):
    api.directory.enrolment = Enrolment(unreachable)
    shown = api.get("/api/v1/enrolment").json
    assert (shown["bundleFault"], "mqttUrl" in shown) == ("set mqtt.public_url", False)
    needed = {"name": "new", "requireBundle": True}
    check_problem(api.post(THINGS, needed), problems.NO_DEVICE_URL)
    assert api.get(f"{THINGS}/new").status == 404
    added = api.post(THINGS, {"name": "new"})
    assert (added.status, added.json["bundleFault"]) == (201, "set mqtt.public_url")
    assert "bundle" not in added.json
    password = added.json["credentials"]["password"]
    check_problem(api.post(f"{THINGS}/new/password", {"requireBundle": True}), problems.NO_DEVICE_URL)
    known = {"username": "new", "password": password}
    assert api.post("/api/v1/mqtt/authentication", known).json["result"] == "allow"


def test_a_browser_saves_the_very_file(api):
    answer = api.post(THINGS, {"name": "new"}).json
    saved = json.dumps(answer["bundle"], indent=2, ensure_ascii=False) + "\n"  # as JSON.stringify does
    bundle = decode_bundle(saved.encode())
    assert (bundle.username, bundle.password) == tuple(answer["credentials"].values())
    assert encode_bundle(bundle) == saved.encode()


def test_a_thing_may_have_no_password_from_the_beginning(api):
    added = api.post(THINGS, {"name": "new", "withPassword": False}).json
    assert (added["hasPassword"], "credentials" in added) == (False, False)
    assert added["bundle"] == {"thingctlBundle": 1, "thing": "new", "url": "mqtt://127.0.0.1:1883"}
    both = {"name": "newer", "withPassword": False, "password": "x" * 20}
    check_problem(api.post(THINGS, both), problems.INVALID_BODY, pointer="/password")


def test_two_passwords_are_valid_until_the_new_one_is_used(api):
    def says(password):
        asked = {"username": "new", "password": password}
        return api.post("/api/v1/mqtt/authentication", asked).json["result"]

    def renewed(**body):
        answer = api.post(f"{THINGS}/new/password", body).json
        return answer["credentials"]["password"], answer.get("oldPassword")

    first = api.post(THINGS, {"name": "new"}).json["credentials"]["password"]
    second, old = renewed()
    assert old == {} == api.get(f"{THINGS}/new").json["oldPassword"]
    assert [says(first), says(second), says(first)] == ["allow", "allow", "deny"]
    assert "oldPassword" not in api.get(f"{THINGS}/new").json
    third, old = renewed(oldValidFor=60)
    assert old == {"validUntil": "2025-05-28T00:01:00.000Z"}
    fourth, old = renewed(oldValidFor=0)
    assert old is None
    assert [says(second), says(third), says(fourth)] == ["deny", "deny", "allow"]
    for wrong in (-1, 366 * 86400 + 1, "1d"):
        check_problem(
            api.post(f"{THINGS}/new/password", {"oldValidFor": wrong}),
            problems.INVALID_BODY,
            pointer="/oldValidFor",
        )
