"""Sign-in codes over the real server, alone and in a cluster."""

from __future__ import annotations

from broker.http.running import AUTHORIZED
from broker.http.test_problems import check_problem
from thingctl_broker.http import problems
from thingctl_broker.http.auth import FAILURES

CODES = "/api/v1/sign-in-codes"
SIGN_IN = "/api/v1/sign-in"


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def redeem(api, code):
    return api.request("POST", SIGN_IN, {"code": code}, headers={})


def test_a_code_becomes_a_token_once(either):
    made = either.request("POST", CODES)
    assert made.status == 201
    code, name = made.json["code"], made.json["name"]
    assert name.startswith("console-admin-")
    assert either.request("GET", "/api/v1/me", headers=bearer(code)).status == 401
    begun = redeem(either, code)
    assert begun.status == 201
    assert begun.json["name"] == name
    me = either.request("GET", "/api/v1/me", headers=bearer(begun.json["token"]))
    assert (me.status, me.json["name"], me.json["scopes"]) == (200, name, ["admin"])
    check_problem(redeem(either, code), problems.UNKNOWN_CODE)
    listed = either.request("GET", "/api/v1/tokens").json["tokens"]
    assert name in {token["name"] for token in listed}
    assert either.request("DELETE", f"/api/v1/tokens/{name}").status == 204
    assert either.request("GET", "/api/v1/me", headers=bearer(begun.json["token"])).status == 401


def test_it_takes_a_token_to_make_one_and_a_session_makes_none(api):
    assert api.request("POST", CODES, headers={}).status == 401
    session = redeem(api, api.request("POST", CODES).json["code"]).json["token"]
    check_problem(api.request("POST", CODES, headers=bearer(session)), problems.FORBIDDEN)


def test_a_wrong_body_is_refused_in_words(api):
    check_problem(redeem(api, 7), problems.INVALID_BODY, pointer="/code")
    check_problem(redeem(api, ""), problems.UNKNOWN_CODE)
    check_problem(redeem(api, "x" * 10_000), problems.UNKNOWN_CODE)
    assert api.request("GET", SIGN_IN, headers={}).status == 405


def test_wrong_codes_count_as_wrong_tokens(api, monkeypatch):
    monkeypatch.setattr("thingctl_broker.http.auth.source_of", lambda host: host)
    good = api.request("POST", CODES).json["code"]
    replies = [redeem(api, f"wrong-{i}") for i in range(FAILURES.burst + 2)]
    assert replies[0].status == 401
    check_problem(replies[-1], problems.RATE_LIMITED)
    check_problem(redeem(api, good), problems.RATE_LIMITED)
    assert api.request("GET", "/api/v1/me", headers=AUTHORIZED).status == 200, "who is known goes on"
