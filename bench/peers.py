"""Where the peers' own dependencies live, and how they get there.

They are other people's programs with dependencies of their own, so they are kept out of
this project's environment: a virtual environment for FastAPI and a node_modules for
aedes, both in a folder under the user's cache, made only when asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_INSTALL_SECONDS: Final = 300
_PYTHON_PACKAGES: Final = ("fastapi", "uvicorn[standard]", "paho-mqtt")


class Peers:
    """The folder, and what is in it."""

    def __init__(self, folder: Path | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = folder or cache / "thingctl-bench"
        self.python = self.folder / "fastapi" / "bin" / "python"
        self.node_folder = self.folder / "aedes"
        self.node = shutil.which("node") or ""

    def missing_fastapi(self) -> str | None:
        """Why the FastAPI peer cannot run; None: it can."""
        return None if self.python.exists() else "FastAPI is not installed (--install-peers does it)"

    def missing_aedes(self) -> str | None:
        """Why the aedes peer cannot run; None: it can."""
        if not self.node:
            return "node is not installed"
        if not (self.node_folder / "node_modules" / "aedes").is_dir():
            return "aedes is not installed (--install-peers does it)"
        return None

    def install(self) -> list[str]:
        """Install what is missing and can be; return what could not be, and why."""
        failures = []
        if self.missing_fastapi():
            venv = self.folder / "fastapi"
            pip = [str(self.python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            failures += _run([sys.executable, "-m", "venv", str(venv)], self.folder) or _run(
                [*pip, *_PYTHON_PACKAGES], self.folder
            )
        npm = shutil.which("npm")
        if self.missing_aedes() and self.node and npm:
            failures += _run([npm, "install", "--no-fund", "--no-audit", "aedes"], self.node_folder)
        return failures


def _run(argv: list[str], folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    print(f"==> {' '.join(argv)}", file=sys.stderr)
    try:
        subprocess.run(argv, cwd=folder, check=True, timeout=_INSTALL_SECONDS, stdout=sys.stderr)
    except (OSError, subprocess.SubprocessError) as error:
        return [str(error)]
    return []
