"""The ``thingctl`` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line; ends the process with one of :class:`~thingctl_broker.cli.exits.Exit`."""
    if sys.argv[1:2] == ["serve"]:
        # Until the broker takes them over, a second of imports later, signals end it as cleanly.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
    try:
        from thingctl_broker.cli.app import run  # noqa: PLC0415 a missing extra gets a message, not a traceback
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("thingctl"):
            raise
        sys.exit(
            f"thingctl: the module {error.name} is not installed; "
            "the thingctl command needs: pip install 'thingctl[broker]'"
        )
    except KeyboardInterrupt:
        sys.exit(130)  # Exit.INTERRUPTED: an impatient person is shown no traceback of imports
    sys.exit(run())
