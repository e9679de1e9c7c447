"""Libraries in C that are loaded before the system's, for processes that a test starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from support.needs import missing


def preloaded(folder: Path, name: str, source: str) -> Path:
    """Compile a source; return the library for ``LD_PRELOAD``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        missing("there is no C compiler (apt-get install gcc)")
    text, library = folder / f"{name}.c", folder / f"{name}.so"
    text.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, text], check=True)
    return library
