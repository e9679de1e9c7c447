"""The command ``thingctl``."""

import typer

from thingctl_broker.cli.serve import serve

app = typer.Typer()
app.command()(serve)


@app.command()
def version() -> None:
    """Say the version."""


main = app
