"""``thingctl serve``: the broker."""

from __future__ import annotations

import sys

import typer


def serve() -> None:
    """Run the broker."""
    print("thingctl serve: not in this version", file=sys.stderr)
    raise typer.Exit(1)
