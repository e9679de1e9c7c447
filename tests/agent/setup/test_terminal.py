"""Output that cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from thingctl_agent.setup.terminal import Terminal
terminal = Terminal()
for number in range(1000):
    terminal.say("line")
print("went on", file=sys.stderr)
sys.exit(terminal.end(0))
"""


@pytest.mark.parametrize(
    ("shell", "code"), [("head -1 >/dev/null", 0), ("cat >/dev/null", 0), ("cat >&- 2>/dev/null", 0)]
)
def test_a_command_goes_on_when_its_reader_has_left(shell, code):
    line = f'{{ "{sys.executable}" -c "$CODE"; echo "code $?" >&2; }} | {shell}'
    done = subprocess.run(
        ["bash", "-c", line], env={"CODE": CODE}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == f"went on\ncode {code}\n"


def test_a_full_disk_is_said_once_and_fails():
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-c", CODE]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "went on\nthingctl-agent: standard output: No space left on device\n"


def test_no_standard_output_at_all_is_no_fault():
    line = f'"{sys.executable}" -c "$CODE" >&-'
    done = subprocess.run(
        ["bash", "-c", line], env={"CODE": CODE}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "went on\n")
