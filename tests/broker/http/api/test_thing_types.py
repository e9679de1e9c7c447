"""The endpoints of thing types, over the real server."""

from __future__ import annotations

import pytest

from broker.http.test_problems import check_problem
from thingctl_broker.http import problems

TYPES = "/api/v1/thing-types"
LIGHT = {
    "description": "Lights",
    "actions": [{"name": "dim", "description": "", "paramsSchema": {"type": "object"}, "policy": {"a": 1}}],
}


def test_a_type_is_put_shown_listed_patched_and_removed(api):
    reply = api.request("PUT", f"{TYPES}/light", LIGHT)
    assert (reply.status, reply.link) == (201, f"{TYPES}/light")
    action = {"name": "dim", "paramsSchema": {"type": "object"}, "policy": {"a": 1}}
    assert reply.json == {"name": "light", "description": "Lights", "actions": [action], "things": 0}
    assert api.get(f"{TYPES}/light").json == reply.json
    api.request("PUT", "/api/v1/things/lamp", {"type": "light"})
    page = api.get(TYPES).json
    assert page == {"thingTypes": [reply.json | {"things": 1}], "nextCursor": None}
    patched = api.request("PATCH", f"{TYPES}/light", {"description": None}).json
    assert (patched["description"], patched["actions"]) == ("", [action])
    assert api.request("PUT", f"{TYPES}/light", {}).status == 200
    check_problem(api.request("DELETE", f"{TYPES}/light"), problems.IN_USE)
    api.request("DELETE", "/api/v1/things/lamp")
    assert api.request("DELETE", f"{TYPES}/light").status == 204
    for method in ("GET", "DELETE", "PATCH"):
        check_problem(
            api.request(method, f"{TYPES}/light", {} if method == "PATCH" else None),
            problems.UNKNOWN_THING_TYPE,
        )


def test_types_are_listed_by_name_in_pages(api):
    for name in "cab":
        api.request("PUT", f"{TYPES}/{name}", {})
    page = api.get(f"{TYPES}?limit=2").json
    assert ([found["name"] for found in page["thingTypes"]], page["nextCursor"]) == (["a", "b"], "b")
    page = api.get(f"{TYPES}?limit=2&cursor=b").json
    assert ([found["name"] for found in page["thingTypes"]], page["nextCursor"]) == (["c"], None)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"actions": [{"name": "a b"}]}, "/actions/0/name"),
        ({"actions": [{"name": "a"}, {"name": "a"}]}, "/actions/1/name"),
        ({"actions": [{"name": "a", "paramsSchema": {"type": "nonsense"}}]}, "/actions/0/paramsSchema/type"),
        ({"actions": [{"name": "a", "resultSchema": {"$ref": "#"}}]}, "/actions/0/resultSchema/$ref"),
        (
            {"actions": [{"name": "a", "paramsSchema": {"properties": {"x/y": {"pattern": "(?=a)"}}}}]},
            "/actions/0/paramsSchema/properties/x~1y/pattern",
        ),
        ({"description": "\x1b"}, "/description"),
        ({"colour": 1}, "/colour"),
    ],
)
def test_what_cannot_be_a_type(api, body, pointer):
    check_problem(api.request("PUT", f"{TYPES}/light", body), problems.INVALID_BODY, pointer=pointer)
    check_problem(api.get(f"{TYPES}/light"), problems.UNKNOWN_THING_TYPE)


def test_a_name_that_cannot_name_a_type(api):
    check_problem(api.request("PUT", f"{TYPES}/a+b", {}), problems.INVALID_BODY, pointer="/name")
