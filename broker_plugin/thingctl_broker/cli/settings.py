"""Which broker the client commands talk to, and with which token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer

from thingctl_broker.cli.client import ApiClient
from thingctl_broker.cli.diagnosis import is_local
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.installed import Installed, installed
from thingctl_broker.system.paths import ADMIN_TOKEN_FILE, TLS_DIR, default_data_dir

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_URL: Final = "http://127.0.0.1:8080"

Url = Annotated[
    str, typer.Option("--url", envvar="THINGCTL_URL", metavar="URL", help="The broker's HTTP address.")
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="THINGCTL_TOKEN",
        metavar="TOKEN",
        help="The API token; without one, the admin-token file of a broker on this machine.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def connect(url: str, token: str, timeout: float | None = None) -> ApiClient:
    """Make the client; raises :class:`Failure` when the URL is invalid or no token is given.

    ``timeout``: seconds for each answer; None: the client's own.
    """
    _check_url(url)
    ca = _ca(url)
    if url == DEFAULT_URL and not token and (service := _service()) is not None:
        file = service.token_file
        return ApiClient(service.url, _admin_token(file), service.ca, token_source=str(file), timeout=timeout)
    if token:
        source = "THINGCTL_TOKEN" if token == os.environ.get("THINGCTL_TOKEN") else "--token"
        _check_token(token)
        return ApiClient(url, token, ca, token_source=source, timeout=timeout)
    client = ApiClient(url, "", ca, timeout=timeout)
    if not is_local(url):
        # The admin token of this machine's broker is sent to no other machine.
        raise Failure(
            Exit.UNAUTHORIZED, f"{url} is another machine: give its API token with --token or THINGCTL_TOKEN"
        )
    path = default_data_dir() / ADMIN_TOKEN_FILE
    if not path.exists():
        client.check_reachable()
    return ApiClient(url, _admin_token(path), ca, token_source=str(path), timeout=timeout)


def _check_url(url: str) -> None:
    """Refuse what people mistake for the address of the HTTP API."""
    name = "THINGCTL_URL" if url == os.environ.get("THINGCTL_URL") else "--url"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Failure(Exit.USAGE, f"{url!r} is not a URL like {DEFAULT_URL}") from None
    if parts.scheme in {"mqtt", "mqtts", "ws", "wss"}:
        raise Failure(
            Exit.USAGE,
            f"{name} is the HTTP API's address, like {DEFAULT_URL}; "
            f"the agent's is THINGCTL_MQTT_URL, where {parts.scheme}://… belongs",
        )
    if "@" in parts.netloc:
        raise Failure(
            Exit.USAGE,
            f"{name} has a user name, and thingctl signs in with an API token only: take it out of the URL, "
            "and give --token or THINGCTL_TOKEN",
        )


def _service() -> Installed | None:
    """The broker that is a service of this machine, where this person has none of their own."""
    if (default_data_dir() / ADMIN_TOKEN_FILE).exists():
        return None
    found = installed()
    return found if found is not None and os.access(found.token_file, os.R_OK) else None


def _ca(url: str) -> str:
    """The authority to trust: ``THINGCTL_CA``, or that of a broker on this machine; else the system's."""
    chosen = os.environ.get("THINGCTL_CA", "")
    if chosen or not url.startswith("https:") or not is_local(url):
        return chosen
    own = default_data_dir() / TLS_DIR / "ca.crt"
    return str(own) if own.exists() else ""


def _admin_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise Failure(
            Exit.UNAUTHORIZED,
            f"no API token: give --token or THINGCTL_TOKEN; there is no {path} either "
            "(a broker writes it at its first start; is it in another user's or another THINGCTL_DATA_DIR?)",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise Failure(Exit.UNAUTHORIZED, f"{path} cannot be read: {reason}") from None
    _check_token(token)
    return token


def _check_token(token: str) -> None:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure(Exit.UNAUTHORIZED, "the API token has characters that no token has")
