"""Things, thing types and tokens have the same verbs."""

from __future__ import annotations

import json

import pytest
import typer.main

from thingctl_broker.cli.app import app
from thingctl_broker.cli.exits import Exit
from thingctl_broker.cli.help import VERBS

NOUNS = ("things", "thing-types", "tokens")


@pytest.mark.parametrize("noun", NOUNS)
def test_each_noun_has_the_same_verbs_first_in_its_help(noun):
    group = typer.main.get_command(app).commands[noun]
    assert tuple(group.list_commands(None))[: len(VERBS)] == VERBS


@pytest.mark.parametrize("noun", NOUNS)
def test_the_bare_noun_lists(quick, noun):
    assert quick(noun, "list") == quick(noun)
    assert quick(noun, "list", "--json").json == quick(noun, "--json").json


@pytest.mark.parametrize("noun", NOUNS)
def test_an_option_before_the_verb_is_not_lost(quick, noun):
    ran = quick(noun, "--json", "list")
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert ran.err == f"thingctl: --json belongs behind the command: {noun} list --json\n"


@pytest.mark.parametrize(
    ("noun", "step"),
    [("things", "things list"), ("thing-types", "thing-types list"), ("tokens", "tokens list")],
)
@pytest.mark.parametrize("verb", ["show", "remove"])
def test_a_name_that_is_unknown_says_how_to_see_those_there_are(quick, noun, step, verb):
    ran = quick(noun, verb, "nosuch")
    assert (ran.code, ran.out) == (Exit.REFUSED, "")
    assert ran.err.endswith(f"; to see what there is: thingctl {step}\n")


def test_a_token_is_shown_and_removed(quick):
    quick("tokens", "add", "night", "things:read", "--thing", "la*")
    shown = quick("tokens", "show", "night").out.splitlines()
    assert shown[0] == "night"
    assert [line.split()[:2] for line in shown[1:5]] == [
        ["scopes", "things:read"],
        ["things", "la*"],
        ["actions", "all"],
        ["expires", "never"],
    ]
    assert quick("tokens", "show", "night", "--json").json["scopes"] == ["things:read"]
    assert quick("tokens", "remove", "night").code == 0
    assert quick("tokens", "show", "night").code == Exit.REFUSED


def test_a_token_cannot_be_changed_and_the_way_round_is_said(quick):
    ran = quick("tokens", "set", "admin")
    assert (ran.code, "thingctl tokens renew admin" in ran.err) == (Exit.USAGE, True)


def test_a_thing_type_is_added_once_and_changed_in_part(quick, tmp_path):
    file = tmp_path / "light.json"
    file.write_text(json.dumps({"description": "Lights", "actions": [{"name": "dim"}]}))
    assert quick("thing-types", "set", "light", str(file)).code == Exit.REFUSED
    assert quick("thing-types", "add", "light", str(file)).code == 0
    ran = quick("thing-types", "add", "light", str(file))
    assert (ran.code, "thingctl thing-types set light FILE" in ran.err) == (Exit.REFUSED, True)
    file.write_text('{"description": "Lamps"}')
    assert quick("thing-types", "set", "light", str(file)).code == 0
    shown = quick("thing-types", "show", "light", "--json").json
    assert (shown["description"], [action["name"] for action in shown["actions"]]) == ("Lamps", ["dim"])


def test_a_thing_type_keeps_its_digits(quick, tmp_path):
    file = tmp_path / "light.json"
    schema = '{"type": "object", "properties": {"level": {"maximum": 1.10, "multipleOf": 1e-1}}}'
    file.write_text(f'{{"actions": [{{"name": "dim", "params": {schema}}}]}}')
    ran = quick("thing-types", "put", "light", str(file))
    shown = quick("thing-types", "show", "light")
    if ran.code == 0:
        assert "1.10" in shown.out
    file.write_text('{"description": "a", "description": "b"}')
    ran = quick("thing-types", "put", "light", str(file))
    assert (ran.code, "'description' is given twice" in ran.err) == (Exit.USAGE, True)
