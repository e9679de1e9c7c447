"""The documentation works as it stands: each block of commands of its pages is typed, in order.

On a machine of its own (support/machine.py), from nothing: the broker closed and by TLS, in an environment
made from the wheel that the pages make; devices as another user in another directory. Who types a block,
and what stands in for a placeholder, is said in a comment before it (support/pages.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from support.machine import Machine, Said, gather_wheels, need_a_machine
from support.pages import COMMANDS, ROOT, Block, Directive, blocks_of, directive_of, filled_in

pytestmark = pytest.mark.system

PAGES = (
    "README.md",
    "docs/getting-started.md",
    "docs/agent.md",
    "docs/http-api.md",
    "docs/operations.md",  # after the others: it gives the broker another authority
    "docs/console.md",
)
OPERATOR, DEVICE = "op", "pi"
SCP = """#!/bin/sh
# In the place of scp: the other machine's files are this one's. Only what the pages type.
for last; do :; done
user=${last%%@*}
while [ $# -gt 1 ]; do sudo install -o "$user" -g "$user" -m 600 "$1" "/home/$user/"; shift; done
"""


@pytest.fixture
def machine(tmp_path):
    need_a_machine()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    gather_wheels(wheels)
    machine = Machine(tmp_path / "files", wheels)
    try:
        for user in (OPERATOR, DEVICE):
            machine.add_user(user)
        scp = machine.files / "usr" / "local" / "bin" / "scp"
        scp.write_text(SCP)
        scp.chmod(0o755)
        check_out(machine)
        yield machine
    finally:
        machine.close()
        shutil.rmtree(tmp_path, ignore_errors=True)


def check_out(machine: Machine) -> None:
    """What a clone has, in the operator's home."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    clone = machine.home(OPERATOR) / "thingctl"
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    machine.own(clone, OPERATOR)


def typed(machine: Machine, block: Block, directive: Directive) -> Said:
    text = filled_in(block, directive)
    machine.interrupt(directive.user)  # who types again has ended what ran in the foreground
    if directive.file:
        return machine.type(directive.user, written(directive.file, text))
    if directive.until:
        return machine.begin(directive.user, text, directive.until)
    return machine.type(directive.user, text)


def written(file: str, text: str) -> str:
    """Commands that write the file and load it, once its user has an agent."""
    load = f'[ ! -e ~/agent ] || PYTHONPATH=. ~/agent/bin/python -c "import {file.removesuffix(".py")}"'
    return f"cat > {file} <<'END OF FILE'\n{text}END OF FILE\n{load}"


def faults_of(machine: Machine, page: str) -> list[str]:
    """Type a page; return what did not come out as the page says."""
    faults = []
    for block in blocks_of(ROOT / page):
        directive = directive_of(block) if block.language in COMMANDS else Directive()
        if not directive.user:
            continue
        said = typed(machine, block, directive)
        print(f"--- {block.place} ({directive.user})\n{block.text}=> {said.code}\n{said.text}")
        missing = [text for text in directive.prints if not re.search(pattern(text), said.text)]
        if said.code or missing:
            faults.append(f"{block.place}: exit code {said.code}, without {missing}\n{block.text}{said.text}")
    machine.interrupt()
    machine.forget()
    return faults


def pattern(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.split("…"))


def test_the_pages_work_as_they_are_typed(machine):
    for page in PAGES:
        faults = faults_of(machine, page)
        assert faults == [], "\n\n".join(faults)


# The shortest way.

MOST_COMMANDS = 8
HEADING = re.compile(r"^## (\w+) commands$", re.MULTILINE)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def commands_of(block: Block) -> list[str]:
    """The commands of a block: one a line or a part of a line that && or ; ends."""
    lines = re.sub(r" *\\\n *", " ", block.text).splitlines()
    parts = [part for line in lines for part in re.split(r"&&|;", re.sub(r"(^|\s)#.*", "", line))]
    return [part.strip() for part in parts if part.strip()]


def first_command_over_tls() -> list[str]:
    """What one types from the README's first line until a device has carried out a command."""
    typed = []
    for page in ("README.md", "docs/getting-started.md"):
        for block in blocks_of(ROOT / page):
            directive = directive_of(block) if block.language in COMMANDS else Directive()
            if directive.user and block.language == "sh":
                typed += commands_of(block)
            if any("SUCCEEDED" in text for text in directive.prints):
                return typed
    raise AssertionError("no block of these pages ends with a command that has succeeded")


def test_it_takes_at_most_eight_commands_to_a_command_carried_out_over_tls():
    typed = first_command_over_tls()
    assert len(typed) <= MOST_COMMANDS, "\n".join(typed)
    said = HEADING.findall((ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8"))
    assert [word.lower() for word in said] == [NUMBERS[len(typed)]]


def test_commands_are_counted_one_by_one():
    block = Block("page", 1, "sh", "# no\na b   # yes\nc && d; e\nf \\\n   g\n", "")
    assert commands_of(block) == ["a b", "c", "d", "e", "f g"]
