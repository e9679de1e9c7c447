"""``thingctl tokens``."""

from __future__ import annotations

from thingctl_broker.cli.exits import Exit
from thingctl_broker.security.tokens import Scope


def test_a_token_is_made_used_renewed_and_revoked(quick):
    made = quick(
        "tokens",
        "add",
        "night",
        "commands:send",
        "things:read",
        "--thing",
        "la*",
        "--action",
        "turn*",
        "--json",
    ).json
    assert (made["scopes"], made["things"], made["actions"]) == (
        ["commands:send", "things:read"],
        ["la*"],
        ["turn*"],
    )
    secret = made["token"]
    assert quick("send", "lamp", "turnOn", "--token", secret).code == 0
    assert quick("send", "lock", "turnOn", "--token", secret).code == Exit.UNAUTHORIZED
    listed = [thing["name"] for thing in quick("things", "--json", "--token", secret).json]
    assert listed == ["lamp"]
    table = quick("tokens").out.splitlines()
    assert table[1].split() == ["admin", "admin", "all", "all", "never"]
    assert table[2].split() == ["night", "commands:send", "things:read", "la*", "turn*", "never"]
    renewed = quick("tokens", "renew", "night").out
    assert renewed.splitlines()[0] == "night: shown this once"
    assert quick("send", "lamp", "turnOn", "--token", secret).code == Exit.UNAUTHORIZED
    other = renewed.split()[-1]
    assert quick("send", "lamp", "turnOn", "--token", other).code == 0
    assert quick("tokens", "revoke", "night") == (0, "", "")
    assert quick("send", "lamp", "turnOn", "--token", other).code == Exit.UNAUTHORIZED
    assert [token["name"] for token in quick("tokens", "--json").json] == ["admin"]


def test_a_token_may_expire(quick):
    made = quick("tokens", "add", "t", "admin", "--expires", "2100-01-01T00:00:00Z", "--json").json
    assert made["expiresAt"] == "2100-01-01T00:00:00.000Z"
    assert quick("tokens").out.splitlines()[2].split()[-2:] == ["2100-01-01", "02:00:00"]


def test_what_is_wrong_is_said(quick):
    ran = quick("tokens", "add", "t", "commands:*")
    assert (ran.code, "is no scope" in ran.err) == (1, True)
    assert quick("tokens", "revoke", "admin").code == 1


def test_the_help_tells_every_scope(quick):
    words = quick("tokens", "add", "--help").out.replace("│", " ").replace(",", " ").replace(".", " ").split()
    assert set(Scope) <= set(words)
