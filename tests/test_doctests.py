"""Every example in a docstring is true."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    (source, path)
    for source in ("shared", "broker_plugin", "device_agent")
    for path in sorted((ROOT / source).rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize(("source", "path"), SOURCES, ids=[path.stem for _, path in SOURCES])
def test_the_examples_of_a_module_run_and_say_what_they_print(source, path):
    name = ".".join(path.relative_to(ROOT / source).with_suffix("").parts)
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.attempted > 0
    assert results.failed == 0


def test_there_are_examples():
    assert {"messages", "statuses", "topics", "outbound_urls"} <= {path.stem for _, path in SOURCES}
