"""axe-core, the checker of accessibility: a pinned npm package in a folder of the machine's, not of the project's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from support.needs import missing

VERSION = "4.14.1"
FOLDER = Path(tempfile.gettempdir()) / f"thingctl-axe-core-{VERSION}-{os.getuid()}"


@cache
def axe_source() -> str:
    """The script that makes ``axe``. Without npm, or without its registry: skipped at home, failed in CI."""
    script = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            missing("npm is not installed")
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        command = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", f"axe-core@{VERSION}"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode or not script.exists():
            missing(f"npm cannot install axe-core: {done.stderr.strip()[-300:]}")
    return script.read_text(encoding="utf-8")
