"""``thingctl console``: a link that signs a browser in once."""

from __future__ import annotations

from typing import Annotated

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.installed import installed
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect


def console(
    *,
    open_: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser, too.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print a link that signs a browser in to the console, once, within 5 minutes.

    The browser gets a token of its own with the same rights, for 12 hours at the most. It is
    listed by "thingctl tokens" and ends with "thingctl tokens revoke NAME".
    """
    with connect(url, token) as client:
        made = client.request_json("POST", "/sign-in-codes")
        link = sign_in_link(_outward(client.url), str(made.get("code", "")))
    if as_json:
        output.print_json(made | {"url": link})
    else:
        print(link)
        output.print_fields([("session", output.clean(made.get("name")))])
        print("It signs in once; it expires in 5 minutes.")
    if open_:
        _show(link)


def sign_in_link(url: str, code: str) -> str:
    """Return the console's address with the code in its fragment, which no server sees.

    >>> sign_in_link("https://broker.example:8443/", "c0de")
    'https://broker.example:8443/#sign-in=c0de'
    """
    return f"{url.rstrip('/')}/#sign-in={code}"


def _outward(url: str) -> str:
    """The address that other machines know a service of this machine by; any other stays as it is."""
    service = installed()
    return service.public_url if service is not None and service.url == url else url


def _show(link: str) -> None:
    import webbrowser  # noqa: PLC0415 only here, and it reads the environment

    if not webbrowser.open(link):
        raise Failure(Exit.REFUSED, "no browser could be started here; open the link in one yourself")
