"""What is decided in one place is not decided in another: one definition of each."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BROKER = "broker_plugin/thingctl_broker"
AGENT = "device_agent/thingctl_agent"


@cache
def sources() -> dict[str, str]:
    """The text of each module, by its path."""
    return {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for package in (BROKER, AGENT, "shared/thingctl_protocol")
        for file in sorted((ROOT / package).rglob("*.py"))
    }


def users_of(*names: str) -> set[str]:
    """The modules whose code calls one of ``names``, such as ``sqlite3.connect`` or ``flock``."""
    found = set()
    for path, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in names or called.rpartition(".")[2] in names:
                    found.add(path)
    return found


@pytest.mark.parametrize(
    ("names", "places"),
    [
        pytest.param(
            ("sqlite3.connect",),
            {f"{BROKER}/storage/sqlite/database.py"},
            id="a database is opened, checked and migrated in one way",
        ),
        pytest.param(
            ("flock",),
            # The agent is a package of its own on the device.
            {f"{BROKER}/storage/sqlite/database.py", f"{AGENT}/runtime/journal.py"},
            id="a directory is locked in one way",
        ),
        pytest.param(
            ("is_loopback",),
            {
                f"{BROKER}/app/config.py",
                f"{BROKER}/cli/diagnosis.py",
                f"{BROKER}/cli/install.py",
                f"{BROKER}/things/enrolment.py",
            },
            id="whether a host is this machine is asked of system.addresses",
        ),
    ],
)
def test_it_is_done_in_one_place(names, places):
    assert users_of(*names) == places


@pytest.mark.parametrize(
    ("words", "place"),
    [
        pytest.param(" - at `$", "shared/thingctl_protocol/json_pointer.py", id="faults of the decoder"),
        pytest.param('"mqtts": 8883', "shared/thingctl_protocol/mqtt_url.py", id="URLs of brokers"),
        pytest.param("class TokenBucket:", f"{BROKER}/security/rate_limit.py", id="token buckets"),
        pytest.param(".is_loopback\n", f"{BROKER}/system/addresses.py", id="what loopback is"),
        pytest.param('"~0"', "shared/thingctl_protocol/json_pointer.py", id="parts of a JSON pointer"),
    ],
)
def test_it_is_written_in_one_place(words, place):
    assert [path for path, text in sources().items() if words in text] == [place]


@pytest.mark.parametrize(
    ("words", "places"),
    [
        pytest.param(
            "new Rows(", {"list.js", "commands.js"}, id="tables: one page of them, and the live one"
        ),
        pytest.param('class: "facts"', {"widgets.js"}, id="names and values"),
        pytest.param('class: "skeleton"', {"widgets.js"}, id="a list that loads"),
        pytest.param("outcomes.map(", {"outcomes.js"}, id="outcomes"),
        pytest.param("row.onclick", {"rows.js"}, id="a click on a row"),
    ],
)
def test_the_console_draws_it_in_one_place(words, places):
    files = (ROOT / BROKER / "console").glob("*.js")
    assert {file.name for file in files if words in file.read_text(encoding="utf-8")} == places
