"""The files for EMQX say what the code says: topics, fields, and who may what."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from thingctl_protocol.messages import Presence, decode_presence, encode_presence
from thingctl_protocol.topics import Kind, Topics, matches

CONFIGS = Path(__file__).parents[4] / "configs" / "emqx"
TOPICS = Topics()
RULES = json.loads((CONFIGS / "rules.json").read_text())["rule_engine"]["rules"]


@pytest.mark.parametrize(
    ("name", "event", "online", "at"),
    [
        ("thingctl_connected", "$events/client_connected", "true", "connected_at"),
        ("thingctl_disconnected", "$events/client_disconnected", "false", "disconnected_at"),
    ],
)
def test_the_rules_publish_a_presence(name, event, online, at):
    rule = RULES[name]
    assert f'FROM "{event}" WHERE' in rule["sql"]
    puts = dict(re.findall(r"map_put\('(\w+)', ([\w/ ]+), ", rule["sql"]))
    assert puts == {"online": online, "clientId": "clientid", "at": f"{at} / 1000"}  # EMQX counts ms
    full = json.loads(encode_presence(Presence(online=True, client_id="c", at=1.5)))
    assert puts.keys() == full.keys()
    (action,) = rule["actions"]
    assert action == {
        "function": "republish",
        "args": {
            "topic": TOPICS.presence("${username}"),
            "payload": "${said}",
            "qos": 1,
            "retain": False,
        },
    }
    assert " AS said " in rule["sql"]
    assert decode_presence(json.dumps(full).encode()).at == 1.5


def test_a_connection_that_another_one_replaces_is_no_departure():
    sql = RULES["thingctl_disconnected"]["sql"]
    assert "reason <> 'takenover'" in sql
    assert "reason <> 'discarded'" in sql


def test_only_what_can_name_a_thing_is_told_of():
    for rule in RULES.values():
        pattern = re.search(r"regex_match\(username, '(.+?)'\)", rule["sql"])[1]
        assert re.search(pattern, "thermostat-001:a.b_c")
        for name in ("", "+", "a/b", "#", "größe"):
            assert not re.search(pattern, name)


def acl():
    """The rules of the file: permission, pattern of user names (None: all), action, topics (None: every one)."""
    text = re.sub(r"^%%.*$", "", (CONFIGS / "acl.conf").read_text(), flags=re.MULTILINE)
    rules = re.findall(
        r'\{(allow|deny), (?:all|\{username, \{re, "(.*?)"\}\})(?:, (publish|subscribe|all), \[(.*?)\])?\}\.',
        text,
        re.DOTALL,
    )
    assert len(rules) == text.count("}.")
    for permission, pattern, action, topics in rules:
        yield permission, pattern or None, action or "all", re.findall(r'"(.*?)"', topics) or None


def may(username, action, topic):
    """What EMQX makes of the file: the first rule that fits; a shared filter without its $share/GROUP/."""
    topic = re.sub(r"^\$share/[^/]+/", "", topic)
    for permission, pattern, allowed, topics in acl():
        if pattern is not None and not re.search(pattern, username):
            continue
        if allowed not in {action, "all"}:
            continue
        if topics is None or any(
            matches(rule.replace("${username}", username).split("/"), topic.split("/")) for rule in topics
        ):
            return permission == "allow"
    return False


def one(kind, thing):
    method = getattr(TOPICS, kind.value)
    return method(thing, "e1") if kind in {Kind.REQUEST, Kind.RESPONSE, Kind.CANCEL} else method(thing)


@pytest.mark.parametrize("kind", Kind)
def test_a_thing_says_and_hears_what_is_its_own_and_no_more(kind):
    says = kind in {Kind.RESPONSE, Kind.ACTIONS, Kind.PRESENCE}
    assert may("lamp", "publish", one(kind, "lamp")) is says
    assert not may("lamp", "publish", one(kind, "door"))
    own = one(kind, "lamp").replace("/e1/", "/+/")
    assert may("lamp", "subscribe", own) is not says
    assert not may("lamp", "subscribe", one(kind, "door"))
    assert not may("lamp", "subscribe", TOPICS.every(kind))
    assert not may("lamp", "subscribe", TOPICS.shared("thingctl", kind))


@pytest.mark.parametrize("kind", Kind)
def test_a_worker_may_all_of_it(kind):
    assert may("thingctl-worker", "publish", one(kind, "lamp"))
    assert may("thingctl-worker", "subscribe", TOPICS.shared("thingctl", kind))
    assert not may("not-thingctl-worker", "publish", TOPICS.request("lamp", "e1"))


@pytest.mark.parametrize("name", ["+", "#", "lamp/executions", "+/x", "lamp door"])
def test_a_user_name_that_is_no_things_widens_nothing(name):
    for action in ("publish", "subscribe"):
        for kind in Kind:
            assert not may(name, action, one(kind, "lamp"))
        assert not may(name, action, "things/lamp/temperature")


def test_all_the_rest_is_denied():
    for topic in ("#", "+/#", "$SYS/#", "$queue/x", "$delayed/5/" + TOPICS.request("lamp", "e"), "news"):
        assert not may("lamp", "subscribe", topic)
        assert not may("lamp", "publish", topic)
    assert may("lamp", "publish", "things/lamp/temperature")
    assert not may("lamp", "publish", "things/door/temperature")
