"""Where the data directory is."""

from __future__ import annotations

from pathlib import Path

import pytest

from thingctl_broker.system.paths import default_data_dir


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"THINGCTL_DATA_DIR": "/data", "XDG_STATE_HOME": "/state"}, Path("/data")),
        ({"THINGCTL_DATA_DIR": "here"}, Path("here")),
        ({"THINGCTL_DATA_DIR": "", "XDG_STATE_HOME": "/state"}, Path("/state/thingctl")),
        ({"XDG_STATE_HOME": "not/absolute"}, Path.home() / ".local/state/thingctl"),
        ({}, Path.home() / ".local/state/thingctl"),
    ],
)
def test_the_first_that_is_set_counts(environ, expected):
    assert default_data_dir(environ) == expected


def test_the_environment_is_asked_when_none_is_given(monkeypatch):
    monkeypatch.setenv("THINGCTL_DATA_DIR", "/data")
    assert default_data_dir() == Path("/data")
