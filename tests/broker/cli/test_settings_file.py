"""Settings changed in the text of a TOML file."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.cli.settings_file import CannotChange, SettingKey, set_values

BIND = SettingKey("http", "bind")
DIR = SettingKey("", "data_dir")


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("", DIR, 'data_dir = "v"\n'),
        ("", BIND, '[http]\nbind = "v"\n'),
        ("open = true\n\n[http]\n", DIR, 'open = true\ndata_dir = "v"\n\n[http]\n'),
        ('[http]\nbind = "x" # why\n', BIND, '[http]\nbind = "v" # why\n'),
        ("[http]\n  bind = 'x'\n", BIND, '[http]\n  bind = "v"\n'),
        ("[http]\n# bind = 'x'\n", BIND, "[http]\nbind = \"v\"\n# bind = 'x'\n"),
        ("[mqtt]\nbind = 'x'\n", BIND, "[mqtt]\nbind = 'x'\n\n[http]\nbind = \"v\"\n"),
        ("[http]\n[mqtt]\nbind = 'x'\n", BIND, "[http]\nbind = \"v\"\n[mqtt]\nbind = 'x'\n"),
        ('[http]\r\nbind = "x"\r\n', BIND, '[http]\r\nbind = "v"\r\n'),
        ('[http]\nbind = "x\u2028y"\n', BIND, '[http]\nbind = "v"\n'),
        ("[[a.b]]\nbind = 1\n[http] # h\n", BIND, '[[a.b]]\nbind = 1\n[http] # h\nbind = "v"\n'),
    ],
)
def test_one_line_changes_and_all_others_stay(before, key, after):
    assert set_values(before, {key: "v"}) == after


@pytest.mark.parametrize(
    "text",
    [
        'http.bind = "x"\n',
        'http = { bind = "x" }\n',
        'a = """\n[http]\nbind = 1\n"""\n',
        '[http]\nbind = """x\ny"""\n',
    ],
)
def test_a_form_that_it_does_not_understand_is_refused_with_what_to_write(text):
    with pytest.raises(CannotChange, match=r'write yourself: http.bind = "v"'):
        set_values(text, {BIND: "v"})


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20))
def test_any_value_survives(value):
    once = set_values('# top\n[http]\nbind = "x" # why\n', {BIND: value, DIR: value})
    again = set_values(once, {BIND: value, DIR: value})
    assert again == once
    assert tomllib.loads(again) == {"http": {"bind": value}, "data_dir": value}
