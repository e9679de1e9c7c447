"""``thingctl backup``: all that a broker of this machine keeps, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thingctl_broker.cli import unit
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.installed import installed
from thingctl_broker.system.paths import default_data_dir


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="Made anew, mode 0600.")],
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="By default the service's, or one's own broker's."),
    ] = None,
) -> None:
    """Write all that the broker keeps into one file; the broker may run.

    Executions, things, roll-outs, tokens, secrets, certificates, the audit log; of a service also
    /etc/thingctl. The file holds secrets. docs/operations.md says how to restore it.
    """
    from thingctl_broker.app.backup import BackupError, back_up  # noqa: PLC0415 heavy

    settings_dir = None
    if data_dir is None:
        data_dir = default_data_dir()
        if not data_dir.exists() and installed() is not None:
            data_dir, settings_dir = Path(unit.STATE_DIR), Path(unit.CONFIG_DIR)
    try:
        size = back_up(data_dir, settings_dir, file)
    except BackupError as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    print(f"{file}: {size} bytes; it holds secrets: keep it where only you can read it")
