"""Where the broker keeps its files when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ADMIN_TOKEN_FILE: Final = "admin-token"  # noqa: S105 the name of a file
"""In the data directory: the operator's copy of the first token."""

TOKENS_FILE: Final = "tokens.json"
"""In the data directory: the hashes of the API tokens."""


TLS_DIR: Final = "tls"
"""In the data directory: what ``thingctl tls`` makes."""


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The data directory of broker and client commands; it need not exist.

    ``$THINGCTL_DATA_DIR``, else ``$XDG_STATE_HOME/thingctl``, else ``~/.local/state/thingctl``.
    Raises RuntimeError when it takes a home directory and there is none.
    """
    environ = os.environ if environ is None else environ
    chosen = environ.get("THINGCTL_DATA_DIR")
    if chosen:
        return Path(chosen)
    # The XDG specification has a relative path ignored.
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "thingctl"
