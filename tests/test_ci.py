"""``.ci/run``: what runs twice is printed last, whether it passes then or not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKE = """#!/bin/sh
echo "make $*" >> calls
[ "$(wc -l < calls)" = 1 ] && first=1
if [ -n "$first" ]; then
  mkdir -p .pytest_cache/v/cache
  [ -z "$FAILED" ] || echo "$FAILED" > .pytest_cache/v/cache/lastfailed
  exit "$FIRST"
fi
exit "$SECOND"
"""


@pytest.fixture
def ci(tmp_path):
    """Runs a copy of the script, with stand-ins for make and for the package manager."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"make": MAKE, "apt-get": "#!/bin/sh\n", "sudo": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(first, second, failed=""):
        environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FIRST": first,
            "SECOND": second,
            "FAILED": failed,
        }
        done = subprocess.run(
            [tmp_path / ".ci" / "run"], env=environ, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, (tmp_path / "calls").read_text().splitlines()

    return run


def test_what_passes_runs_once_and_says_nothing(ci):
    code, out, calls = ci("0", "0")
    assert (code, calls, "FAILED ONCE" in out) == (0, ["make test"], False)


@pytest.mark.parametrize("second", ["0", "2"])
def test_what_runs_twice_is_listed_last(ci, second):
    code, out, calls = ci("2", second, '{"tests/b.py::two": true, "tests/a.py::one": true}')
    assert code == int(second)
    assert calls[1] == "make test PYTEST_ARGS=--last-failed --last-failed-no-failures none"
    banner, first, last, end = out.splitlines()[-4:]
    assert (first, last) == ("tests/a.py::one", "tests/b.py::two")
    assert set(banner) == set(end) == {"#"}
    assert "FAILED ONCE AND RAN A SECOND TIME" in out


def test_checks_that_fail_before_the_tests_are_named(ci):
    code, out, _ = ci("2", "2")
    assert (code, "the checks before the tests" in out.splitlines()[-2]) == (2, True)


def test_what_a_test_tells_its_reader_to_install_is_installed():
    told = re.compile(r"apt-get install ([a-z0-9-]+)")
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    packages = {package for text in texts for package in told.findall(text)}
    script = (ROOT / ".ci" / "run").read_text()
    installs = re.findall(r'need="\$need ([^"]*)"', script) + re.findall(r"for shell in ([a-z ]+);", script)
    assert packages - {package for line in installs for package in line.split()} == set()
