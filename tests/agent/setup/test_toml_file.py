"""Keys of a TOML text change; the rest of it stays, letter by letter."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.harness import ROOT
from thingctl_agent.errors import AgentError
from thingctl_agent.setup.toml_file import change, quoted

OWN = """# of the device in the hall
thing = "t"
url = "mqtt://old"  # the old one
handlers = [
  "a.py",  # mine
  "b.py",
]

[log]
level = "debug"

[tls]
# from the factory
ca = '/factory#1.pem' # keep

[actions.shell]
commands = { "disk" = ["df"] }
"""


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"url": "mqtts://new"}, '"mqtt://old"', '"mqtts://new"'),
        ({"tls.ca": "/new.pem"}, "'/factory#1.pem'", '"/new.pem"'),
        ({"handlers": ["c.py"]}, '[\n  "a.py",  # mine\n  "b.py",\n]', '["c.py"]'),
        ({"presence": True}, "]\n\n[log]", "]\npresence = true\n\n[log]"),
        ({"tls.key": "/k"}, "[tls]\n", '[tls]\nkey = "/k"\n'),
        ({"url": None}, 'url = "mqtt://old"  # the old one\n', ""),
        ({"tls.ca": None}, "ca = '/factory#1.pem' # keep\n", ""),
        ({"username": None}, "", ""),
    ],
)
def test_only_what_is_given_changes(changes, before, after):
    assert before in OWN
    assert change(OWN, changes) == (OWN.replace(before, after, 1) if before else OWN)


def test_a_new_table_comes_last():
    assert change('thing = "t"', {"tls.ca": "/c"}) == 'thing = "t"\n\n[tls]\nca = "/c"\n'
    assert change("", {"thing": "t"}) == 'thing = "t"\n'
    assert change("# a\n[log]\n", {"thing": "t"}) == '# a\nthing = "t"\n[log]\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('tls = { ca = "a" }\n', 'tls.ca cannot be changed in place; write ca = "b" yourself'),
        ('tls.ca = "a"\n', 'tls.ca cannot be changed in place; write ca = "b" yourself'),
        ('"tls" . "ca" = "a"\n', 'tls.ca cannot be changed in place; write ca = "b" yourself'),
        ("tls = 5\n", 'tls.ca cannot be changed in place; write ca = "b" yourself'),
        ("a = \n", "it is not TOML"),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(text, reason):
    with pytest.raises(AgentError, match=reason):
        change(text, {"tls.ca": "b"})


def test_a_key_in_a_string_of_many_lines_is_none():
    text = 'note = """\nurl = "x"\n[tls]\n"""\nurl = "a"\n'
    assert change(text, {"url": "b"}) == text.replace('url = "a"', 'url = "b"')


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.toml")), ids=lambda file: file.name)
def test_shipped_files_can_be_changed(file):
    text = file.read_text()
    changed = tomllib.loads(change(text, {"thing": "other"}))
    assert changed == tomllib.loads(text) | {"thing": "other"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_survives(value):
    text = change(OWN, {"url": value, "tls.ca": value, "handlers": [value]})
    read = tomllib.loads(text)
    assert (read["url"], read["tls"]["ca"], read["handlers"]) == (value, value, [value])
    assert tomllib.loads(f"a = {quoted([value])}") == {"a": [value]}
