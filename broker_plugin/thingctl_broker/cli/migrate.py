"""``thingctl migrate``: from one broker's data directory to the store of a cluster."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 typer reads the annotations
from typing import Annotated

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.exits import Exit, Failure


def migrate(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="The data directory of the broker that was.")
    ],
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="THINGCTL_STORE",
            metavar="URL",
            help="postgresql://user@host:5432/database; the password by PGPASSWORD or PGPASSFILE.",
        ),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Move what one broker keeps into PostgreSQL, for workers.

    Executions, things, thing types, tokens and rollouts. The broker must not run. Its data
    directory stays as it is, and so does what the store has already: to move again adds what is
    missing.
    """
    import asyncio  # noqa: PLC0415 the client commands must start fast

    try:
        from thingctl_broker.app.migrate import SourceError, move  # noqa: PLC0415
        from thingctl_broker.cluster.store_port import StoreDown  # noqa: PLC0415
        from thingctl_broker.storage.postgres.schema import SchemaError  # noqa: PLC0415
        from thingctl_broker.storage.postgres.settings import StoreSettings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("thingctl"):
            raise
        raise Failure(
            Exit.USAGE,
            f"the module {error.name} is not installed; this needs: pip install 'thingctl[cluster]'",
        ) from None
    try:
        moved = asyncio.run(move(data_dir, StoreSettings(url=store), _progress))
    except ValueError as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except StoreDown as error:
        raise Failure(Exit.UNREACHABLE, error.text) from None
    except (SourceError, SchemaError) as error:
        raise Failure(Exit.REFUSED, error.text) from None
    finally:
        _progress("", 0)
    if as_json:
        output.print_json({one.kind: {"found": one.found, "added": one.added} for one in moved})
        return
    rows = [(one.kind, str(one.found), str(one.added), str(one.found - one.added)) for one in moved]
    output.print_table(("MOVED", "FOUND", "NEW", "THERE ALREADY"), rows)


def _progress(kind: str, done: int) -> None:
    """One line on a terminal, written over and over; empty at the end."""
    if sys.stderr.isatty():
        text = f"{kind}: {done}" if kind else ""
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
