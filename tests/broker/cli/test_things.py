"""``thingctl things`` and ``thingctl thing-types``."""

from __future__ import annotations

import json
import stat

import pytest

from thingctl_protocol.bundle import decode_bundle, encode_bundle


def announce(api, thing, *actions):
    payload = json.dumps({"agentVersion": "1.2", "actions": list(actions)}).encode()
    api.call(api.service.announce, thing, payload)


def test_things_are_listed(api, quick):
    api.connect("lamp")
    announce(api, "lamp", {"name": "turnOn"}, {"name": "turnOff"})
    quick("things", "set", "lamp", "--tag", "hall", "--tag", "a")
    lines = quick("things").out.splitlines()
    assert lines[1].split() == ["lamp", "yes", "2025-05-28", "02:00:00", "a", "hall", "turnOn,", "turnOff"]
    assert lines[2].split() == ["lock", "no", "never"]
    assert [thing["name"] for thing in quick("things", "--json").json] == ["lamp", "lock"]


def test_things_are_filtered(api, quick):
    api.connect("lamp")
    quick("things", "set", "lock", "--tag", "hall", "--tag", "b")

    def names(*options):
        return [thing["name"] for thing in quick("things", "--json", *options).json]

    assert names("--online") == ["lamp"]
    assert names("--offline") == ["lock"]
    assert names("--tag", "hall", "--tag", "b") == ["lock"]
    assert names("--type", "x") == []
    ran = quick("things", "--tag", "nosuch")
    assert (ran.code, ran.out, ran.err) == (0, "", "no such things\n")


def test_a_thing_is_added_and_its_password_shown(api, quick):
    added = quick("things", "add", "new", "--tag", "hall", "--description", "In the hall", "--json").json
    assert added.keys() == {"name", "username", "password"}
    assert (added["name"], added["username"]) == ("new", "new")
    assert api.service.things.get("new").definition.description == "In the hall"
    ran = quick("things", "add", "new")
    assert (ran.code, ran.err) == (1, "thingctl: there is a thing named 'new' already\n")
    text = quick("things", "password", "new").out
    assert text.splitlines()[0] == "new: shown this once"
    assert added["password"] not in text
    assert quick("things", "password", "new", "--json").json["name"] == "new"


def test_a_thing_whose_session_was_taken_says_so(api, quick):
    api.call(api.service.things.taken_over, "lamp")
    assert "takeovers 1 since the broker started: is another device" in quick("things", "show", "lamp").out


def test_a_thing_is_shown_changed_and_removed(api, quick, tmp_path):
    file = tmp_path / "light.json"
    file.write_text('{"actions": [{"name": "dim"}]}')
    api.connect("lamp")
    announce(api, "lamp", {"name": "x", "paramsSchema": {"$ref": "#"}})
    quick("thing-types", "put", "light", str(file))
    shown = quick("things", "set", "lamp", "--type", "light", "--description", "d", "--disabled").out
    assert shown.splitlines()[0].startswith("lamp: online since 2025-05-28")
    assert shown.splitlines()[0].endswith(", disabled")
    for words in (
        "type      light",
        "about     d",
        "agent     1.2",
        "drift     dim: notAnnounced",
        "not enforced",
    ):
        assert words in shown, shown
    assert quick("things", "show", "lamp").out == shown
    assert quick("things", "show", "lamp", "--json").json["type"] == "light"
    assert quick("things").out.splitlines()[1].split()[1] == "disabled"
    changed = quick("things", "set", "lamp", "--type", "", "--no-tags", "--enabled", "--json").json
    assert "type" not in changed
    assert changed["enabled"] is True
    assert quick("things", "remove", "lamp") == (0, "", "")
    assert quick("things", "show", "lamp").code == 1


@pytest.mark.parametrize("name", ["a/b", "../tokens", "a?b", "a#", ""])
def test_a_name_leads_nowhere_else(api, quick, name):
    for command in ("show", "remove", "password"):
        ran = quick("things", command, name)
        assert ran.code == 1, ran
    assert {thing.name for thing in api.service.things} == {"lamp", "lock"}


def test_thing_types_are_put_shown_listed_and_removed(api, quick, tmp_path, monkeypatch):
    file = tmp_path / "light.json"
    file.write_text(json.dumps({"description": "Lights", "actions": [{"name": "dim"}, {"name": "blink"}]}))
    assert quick("thing-types").err == "no thing types: thingctl thing-types add NAME FILE\n"
    assert quick("thing-types", "put", "light", str(file)) == (0, "", "")
    assert quick("thing-types").out.splitlines()[1].split() == ["light", "0", "dim,", "blink"]
    shown = quick("thing-types", "show", "light")
    assert shown.json["description"] == "Lights"
    file.write_text(shown.out)  # what is shown may be put again
    assert quick("thing-types", "put", "light", str(file)).code == 0
    assert [found["name"] for found in quick("thing-types", "--json").json] == ["light"]
    assert quick("thing-types", "remove", "light").code == 0
    assert quick("thing-types", "remove", "light").code == 1
    file.write_text("{")
    assert quick("thing-types", "put", "light", str(file)).code == 2
    assert quick("thing-types", "put", "light", str(tmp_path / "nosuch")).code == 2
    file.write_text('{"actions": [{"name": "a b"}]}')
    ran = quick("thing-types", "put", "light", str(file))
    assert (ran.code, "(at /actions/0/name)" in ran.err) == (1, True)


def test_a_bundle_that_cannot_be_written_changes_nothing(api, quick, tmp_path):
    taken = tmp_path / "new.bundle"
    taken.write_text("the old one")
    for path in (taken, tmp_path / "nowhere" / "x.bundle", tmp_path):
        ran = quick("things", "add", "new", "--bundle", str(path))
        assert (ran.code, "nothing was changed" in ran.err) == (2, True)
        assert "new" not in api.service.things
    assert "--force" in quick("things", "add", "new", "--bundle", str(taken)).err
    first = quick("things", "add", "new", "--json").json["password"]
    before = api.service.things.get("new").password_hash
    assert quick("things", "password", "new", "--bundle", str(taken)).code == 2
    assert quick("things", "password", "new", "--force", "--bundle", str(tmp_path)).code == 2
    assert api.service.things.get("new").password_hash == before
    assert taken.read_text() == "the old one"
    assert quick("things", "password", "new", "--force", "--bundle", str(taken)).code == 0
    bundle = decode_bundle(taken.read_bytes())
    assert (bundle.thing, taken.read_bytes()) == ("new", encode_bundle(bundle))
    assert bundle.password != first
    assert stat.S_IMODE(taken.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "bundle" in path.name] == ["new.bundle"]


def test_no_empty_bundle_is_left_behind(api, quick, tmp_path):
    quick("things", "add", "new", "--json")
    for force in ((), ("--force",)):
        ran = quick("things", "add", "new", "--bundle", str(tmp_path / "a.bundle"), *force)
        assert (ran.code, ran.err) == (1, "thingctl: there is a thing named 'new' already\n")
    assert [path.name for path in tmp_path.iterdir() if "bundle" in path.name] == []


def test_a_bundle_may_be_printed(api, quick):
    ran = quick("things", "add", "new", "--bundle", "-")
    assert decode_bundle(ran.out.encode()).thing == "new"


def test_an_old_password_stays_valid_as_long_as_one_says(api, quick):
    quick("things", "add", "new")
    assert "until the thing signs in with the new one" in quick("things", "password", "new").err
    assert "valid until" in quick("things", "show", "new").out
    ran = quick("things", "password", "new", "--old-valid-for", "7d")
    assert "at the latest" in ran.err
    assert api.service.things.get("new").previous_until == api.clock.unix() + 7 * 86400
    assert quick("things", "password", "new", "--old-valid-for", "0").err == ""
    assert api.service.things.get("new").previous_hash == ""
    ran = quick("things", "password", "new", "--old-valid-for", "soon")
    assert (ran.code, "such as 7d" in ran.err) == (2, True)
