"""Where the broker keeps its data when nobody says."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """``$THINGCTL_DATA_DIR``, else ``$XDG_STATE_HOME/thingctl``, else ``~/.local/state/thingctl``."""
    if chosen := os.environ.get("THINGCTL_DATA_DIR"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "thingctl"
