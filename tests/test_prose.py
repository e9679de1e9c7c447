"""Turns of phrase that hide who does what: none is to be added, and those that stand go one by one.

Say the subject: who, or which part, does it; and say "when", "then" or "right away" only where the time matters.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RETIRED = (
    "nobody",
    "somebody",
    "whoever",
    "at once",
    "is told",
    "are told",
    "told of",
    "so that",
    "meanwhile",
    "goes out",
    "go out",
    "in words",
    "is kept",
    "are kept",
    "looked at",
    "is none",
    "what became of",
)
"""Only the product's own line ("know what became of each one") keeps the last."""

BROKER = "broker_plugin/thingctl_broker"
MOST = {
    f"{BROKER}/app": 21,
    f"{BROKER}/audit": 4,
    f"{BROKER}/cli": 2,
    f"{BROKER}/cluster": 69,
    f"{BROKER}/commands": 57,
    f"{BROKER}/console": 1,
    f"{BROKER}/errors.py": 2,
    f"{BROKER}/http": 49,
    f"{BROKER}/mqtt": 36,
    f"{BROKER}/rollouts": 18,
    f"{BROKER}/security": 28,
    f"{BROKER}/storage": 78,
    f"{BROKER}/system": 13,
    f"{BROKER}/testing": 9,
    f"{BROKER}/things": 19,
    f"{BROKER}/webhooks": 13,
    "device_agent": 19,
    "shared": 1,
    "docs": 126,
    "bench": 29,
    "README.md": 2,
    "CONTRIBUTING.md": 1,
}
"""How many there are. A change that removes some lowers the number."""


def count(place: str) -> int:
    root = ROOT / place
    files = (
        [root]
        if root.is_file()
        else [p for p in sorted(root.rglob("*")) if p.suffix in {".py", ".md", ".js", ".html"}]
    )
    pattern = re.compile(
        r"\b(?i:" + "|".join(phrase.replace(" ", r"\s+(?:#\s*)?") for phrase in RETIRED) + r")\b"
    )
    of_code = re.compile(r"\bis None\b")
    return sum(len(pattern.findall(of_code.sub("", file.read_text(encoding="utf-8")))) for file in files)


def test_every_room_is_counted():
    rooms = {p.name for p in (ROOT / BROKER).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert {f"{BROKER}/{name}" for name in rooms | {"console"}} <= set(MOST) | {f"{BROKER}/__init__.py"}


@pytest.mark.parametrize("place", MOST)
def test_retired_phrases_only_become_fewer(place):
    assert count(place) == MOST[place], "more: write it plainly; fewer: lower the number"
