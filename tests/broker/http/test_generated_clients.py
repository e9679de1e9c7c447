"""Clients that others' generators make from ``/openapi.json`` compile, and talk to the API.

npm and pip bring the generators, pinned here, into a temporary folder. Without them the tests skip;
in CI they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker.http.running import TOKEN, RunningApi

SOURCES = Path(__file__).parent / "clients"
NPM_PACKAGES = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")
PYTHON_GENERATOR = "openapi-python-client==0.29.1"
INSTALL_SECONDS = 150


def run(*command, folder, seconds=60, **environment):
    """Run a program to its end; return what it printed. Fails with its output when it failed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def install(*command, folder):
    """Install a generator; without a registry skip, in CI fail."""
    try:
        run(*command, folder=folder, seconds=INSTALL_SECONDS)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        missing(f"the generator cannot be installed: {error}")


def missing(reason):
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def api(tmp_path):
    running = RunningApi()
    try:
        (tmp_path / "openapi.json").write_bytes(running.get("/openapi.json", headers={}).content)
        yield running
    finally:
        running.close()


def test_a_typescript_client(api, tmp_path):
    npm = shutil.which("npm") or missing("npm is not installed")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    install(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *NPM_PACKAGES, folder=tmp_path)
    shutil.copy(SOURCES / "use.ts", tmp_path)
    programs = tmp_path / "node_modules" / ".bin"
    run(str(programs / "openapi-typescript"), "openapi.json", "--output", "api.d.ts", folder=tmp_path)
    strict = ("--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2022")
    run(str(programs / "tsc"), *strict, "use.ts", folder=tmp_path)
    told = json.loads(run("node", "use.js", folder=tmp_path, URL=api.url, TOKEN=TOKEN))
    assert told == {
        "statuses": [201, 201, 201, 200, 200, 201],
        "params": {"value": 24},
        "hasPassword": True,
        "description": "by a generated client",
        "things": ["added", "lamp", "lock"],
        "actions": ["turnOn", "set"],
        "pointer": "/action",
    }


def test_a_python_client(api, tmp_path):
    run(sys.executable, "-m", "venv", "venv", folder=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    install(python, "-m", "pip", "install", "--quiet", PYTHON_GENERATOR, folder=tmp_path)
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    generator = (
        "-m",
        "openapi_python_client",
        "generate",
        "--path",
        "openapi.json",
        "--config",
        "config.yml",
    )
    warnings = ("--fail-on-warning", "--meta", "none", "--output-path", "client")
    run(python, *generator, *warnings, folder=tmp_path)
    shutil.copy(SOURCES / "use.py", tmp_path)
    told = json.loads(run(python, "use.py", folder=tmp_path, URL=api.url, TOKEN=TOKEN))
    assert told == {
        "params": {"value": 24},
        "created": True,
        "hasPassword": True,
        "isRenewed": True,
        "description": "generated",
        "expires": True,
        "things": ["added", "lamp", "lock"],
        "actions": ["set", "turnOn"],
        "pointer": "/action",
    }
