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
    "so that",
    "meanwhile",
    "goes out",
    "go out",
    "in words",
    "what became of",
)
"""Only the product's own line ("know what became of each one") keeps the last."""

MOST = {
    "broker_plugin": 306,
    "device_agent": 1,
    "shared": 0,
    "docs": 69,
    "README.md": 1,
    "CONTRIBUTING.md": 0,
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
        r"\b(" + "|".join(phrase.replace(" ", r"\s+") for phrase in RETIRED) + r")\b", re.IGNORECASE
    )
    return sum(len(pattern.findall(file.read_text(encoding="utf-8"))) for file in files)


@pytest.mark.parametrize("place", MOST)
def test_retired_phrases_only_become_fewer(place):
    assert count(place) == MOST[place], "more: write it plainly; fewer: lower the number"
