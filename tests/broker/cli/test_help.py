"""The help and docs/cli.md tell every command, option, variable and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from thingctl_broker.cli.app import app
from thingctl_broker.cli.exits import Exit
from thingctl_broker.cli.help import CONNECTION, SECTIONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMON = {"--json", "--url", "--token", "--help"}
READ_ELSEWHERE = {"THINGCTL_MQTT_URL"}  # the agent's: named where it is mistaken for ours


def commands(command=None, path=("thingctl",)):
    command = command or typer.main.get_command(app)
    found = getattr(command, "commands", None)
    if found is None:
        return [(" ".join(path), command)]
    return [pair for name, sub in found.items() for pair in commands(sub, (*path, name))]


def variables_in_code():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "broker_plugin").rglob("*.py")]
    return {name for text in texts for name in re.findall(r"\bTHINGCTL_[A-Z_]+\b", text)}


def section(name):
    found = re.search(
        rf"^### `{re.escape(name)}(?: [^`a-z]*)?`\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/cli.md has no heading for {name}"
    return found[1]


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_page_tells_each_command_with_each_option(name, command):
    told = section(name)
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for option in set(parameter.opts) - COMMON:
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", told), option


def test_the_page_tells_no_command_that_is_not_there():
    names = {name for name, _ in commands()}
    for heading in re.findall(r"^### `(thingctl[a-z -]*[a-z])", PAGE, re.MULTILINE):
        assert heading in names


def test_each_command_stands_in_a_section_of_the_help():
    placed = {name for names in SECTIONS.values() for name in names}
    assert {name.split()[1] for name, _ in commands()} <= placed


def test_every_variable_is_in_the_help_and_on_the_page(quick):
    shown = quick("--help").out
    for name in variables_in_code() | {
        "NO_COLOR",
        "PGPASSWORD",
        "PGPASSFILE",
        "XDG_STATE_HOME",
        "http_proxy",
    }:
        assert name in shown, name
        assert name in PAGE, name


def test_the_help_tells_no_variable_that_nothing_reads(quick):
    told = set(re.findall(r"\bTHINGCTL_[A-Z_]+\b", quick("--help").out + PAGE))
    assert told - READ_ELSEWHERE <= variables_in_code()


@pytest.mark.parametrize(
    "command",
    [name.split()[1:] for name, found in commands() if any(p.name == "url" for p in found.params)],
    ids=" ".join,
)
def test_each_command_that_talks_to_a_broker_names_the_variables(quick, command):
    shown = quick(*command, "--help").out
    for name in CONNECTION:
        assert name in shown


def test_every_exit_code_is_in_the_help_and_on_the_page(quick):
    shown = quick("--help").out
    for code in Exit:
        assert re.search(rf"\b{int(code)}\b", shown), code
        assert re.search(
            rf"\b{int(code)}\b", PAGE[PAGE.index("## Exit codes") : PAGE.index("## Completion")]
        ), code


def test_the_help_begins_with_the_first_steps(quick):
    shown = quick("--help").out
    places = [
        shown.index(text) for text in ("First steps:", "thingctl serve", "thingctl things add", "--wait")
    ]
    assert places == sorted(places)
    assert shown.index("First steps:") < shown.index("Commands to things:")
