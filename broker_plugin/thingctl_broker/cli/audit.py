"""``thingctl audit``: whether the audit file is whole."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 typer reads the annotations
from typing import Annotated

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import AsJson  # noqa: TC001 typer reads the annotations
from thingctl_broker.system.paths import default_data_dir

app = typer.Typer(help="Look into the audit file.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Look into the audit file."""


@app.command()
def verify(
    *,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The broker's data directory.")] = None,
    seal: Annotated[
        str, typer.Option("--seal", metavar="SEAL", help="A seal noted earlier, which must be there.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tell whether anything in the audit file was changed, removed, inserted or reordered."""
    from thingctl_broker.audit.chain import Broken, files, verify  # noqa: PLC0415 the client commands start fast

    directory = default_data_dir() if data_dir is None else data_dir
    try:
        found = files(directory)
        verdict = verify(found, seal)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{error.filename or directory} cannot be read: {error.strerror}") from None
    if not found:
        raise Failure(Exit.USAGE, f"there is no audit file in {directory}")
    if isinstance(verdict, Broken):
        raise Failure(Exit.REFUSED, f"{verdict.path}, line {verdict.line}: {verdict.fault}")
    if as_json:
        output.print_json(verdict._asdict())
    else:
        print(f"whole: {verdict.records} records in {verdict.files} files, {verdict.unsealed} not sealed yet")
        for begun in verdict.begun_again:
            print(f"a new chain begins in {output.clean(begun)}")
        print(f"last seal: {verdict.last_seal}")
