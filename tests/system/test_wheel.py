"""What 'make wheel' builds: all that a broker needs and nothing else, and a fresh environment runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen
from zipfile import ZipFile

import pytest

from support.needs import missing
from support.processes import ROOT, process, until_said
from thingctl_broker.http.console import FOLDER
from thingctl_protocol import __version__

pytestmark = pytest.mark.system

NO_INDEX = re.compile(
    r"No matching distribution|Could not fetch|Connection|Network|Name or service", re.IGNORECASE
)


def pip(python, *words):
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and NO_INDEX.search(done.stderr):
        missing(f"pip has no packages to install here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built as the Makefile does, with the pinned tools."""
    folder = tmp_path_factory.mktemp("dist")
    pip(sys.executable, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    assert made.name == f"thingctl-{__version__}-py3-none-any.whl"
    return made


def test_it_holds_the_packages_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    packages = ("thingctl_protocol", "thingctl_broker", "thingctl_agent")
    tops = {name.split("/")[0] for name in names}
    assert tops == {*packages, f"thingctl-{__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in packages} <= names
    assert {f"thingctl_broker/console/{file.name}" for file in FOLDER.iterdir()} <= names
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if re.search(r"(^|/)(tests?|conftest)(/|\.|_)|\.pyc$", name)]
    assert "Provides-Extra: broker" in metadata


def test_a_fresh_environment_serves_from_it(wheel, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    programs = environment / "bin"
    pip(programs / "python", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel}[broker]")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for program in ("thingctl", "thingctl-agent"):
        said = subprocess.check_output([programs / program, "--version"], env=environ, text=True)
        assert said.strip() == f"{program} {__version__}"
    ports = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with process(programs / "thingctl", "serve", *ports, "--data-dir", tmp_path / "data") as broker:
        url = re.search(r"^http +(\S+)", until_said(broker, "\ntoken "), re.MULTILINE)[1]
        with urlopen(f"{url}/readyz") as answer:
            assert answer.status == 200
        with urlopen(url) as page:
            assert b"<title>thingctl</title>" in page.read()


def test_the_makefile_builds_it_with_pinned_tools():
    """The recipe that the tests above follow, and the version of the one tool that it needs."""
    recipe = (ROOT / "Makefile").read_text().partition("\nwheel:")[2].partition("\n\n")[0]
    assert "pip wheel" in recipe
    assert "--no-build-isolation --no-deps --wheel-dir dist" in recipe
    assert re.search(r"^hatchling==", Path(ROOT / "constraints.txt").read_text(), re.MULTILINE)
