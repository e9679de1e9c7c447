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
    ],
)
def test_it_is_done_in_one_place(names, places):
    assert users_of(*names) == places
