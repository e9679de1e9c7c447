"""``thingctl tls``: a private certificate authority for those who have none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.system.paths import TLS_DIR, default_data_dir
from thingctl_protocol.identifiers import is_thing_name

if TYPE_CHECKING:
    from thingctl_broker.security.certificate_authority import Authority, Pair

Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Where the files are; by default tls in the data directory."),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="HOST", help="A host name or address of the broker; may be repeated."),
]

app = typer.Typer(help="Make a private CA and certificates.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Make a private CA and certificates."""


@app.command()
def init(*, directory: Directory = None, name: Names = None) -> None:
    """Make a CA, and a certificate for the broker. What is there already stays."""
    from thingctl_broker.security.certificate_authority import CA, CA_CERT, CA_KEY, Authority, utc_now  # noqa: PLC0415 heavy

    where = _where(directory)
    authority = Authority.make(utc_now())
    _write(where, CA, authority.pair())
    _server(where, name)
    print(f"the broker: thingctl serve --tls-dir {where}")
    print(f"clients trust it by {where / CA_CERT}; keep {where / CA_KEY} secret, best off this machine")


@app.command()
def server(*, directory: Directory = None, name: Names = None) -> None:
    """Make the broker another certificate by the same CA; a running broker takes it up."""
    _server(_where(directory), name, replaces=True)


@app.command()
def thing(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The thing's name.")],
    *,
    directory: Directory = None,
) -> None:
    """Make a thing a certificate that it may connect with instead of a password."""
    where = _where(directory)
    _write(where, name, thing_pair(where, name))


def thing_pair(where: Path, name: str) -> Pair:
    """A thing's certificate and key by the CA in ``where``; raises :class:`Failure`."""
    from thingctl_broker.security.certificate_authority import utc_now  # noqa: PLC0415 heavy

    if not is_thing_name(name):
        raise Failure(Exit.USAGE, f"{name!a} can't name a thing")
    return _authority(where).thing(name, utc_now())


def _server(where: Path, names: list[str] | None, *, replaces: bool = False) -> None:
    from thingctl_broker.security.certificate_authority import SERVER, utc_now  # noqa: PLC0415 heavy

    pair = _authority(where).server(names or ["localhost", "127.0.0.1", "::1"], utc_now())
    _write(where, SERVER, pair, replaces=replaces)


def _authority(where: Path) -> Authority:
    from thingctl_broker.security.certificate_authority import Authority, PkiError  # noqa: PLC0415 heavy

    try:
        return Authority.load(where)
    except PkiError as error:
        raise Failure(Exit.USAGE, str(error)) from None


def _write(where: Path, name: str, pair: Pair, *, replaces: bool = False) -> None:
    from thingctl_broker.security.certificate_authority import PkiError, write_pair  # noqa: PLC0415 heavy

    try:
        write_pair(where, name, pair, replaces=replaces)
    except PkiError as error:
        raise Failure(Exit.USAGE, str(error)) from None


def _where(directory: Path | None) -> Path:
    return default_data_dir() / TLS_DIR if directory is None else directory
