"""The broker that ``thingctl install`` has made a service of this machine: where it is, and its token."""

from __future__ import annotations

import ssl
import time
import tomllib
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from thingctl_broker.cli import unit
from thingctl_broker.system.addresses import parse_address
from thingctl_broker.system.paths import ADMIN_TOKEN_FILE

_PAUSE: Final = 0.2
"""Seconds between two looks whether it serves."""


class Installed(NamedTuple):
    """What the client commands need to reach it. ``ca``: a file, or empty for the system's."""

    url: str
    public_url: str
    """The same by the name that other machines know it by: ``http.public_url``, if that is set."""
    token_file: Path
    ca: str


def installed(root: Path = Path("/")) -> Installed | None:
    """Return the broker installed on this machine; None without one, or if only root may read it."""
    try:
        settings = tomllib.loads((root / unit.CONFIG.lstrip("/")).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    http = settings.get("http", {})
    try:
        address = parse_address(http.get("bind", "127.0.0.1:8080"))
    except ValueError:
        return None
    cert, told = http.get("tls_cert", ""), str(http.get("public_url", ""))
    own, public = _hosts(root, cert, address.host, _public_host(settings))
    scheme = "https" if cert else "http"
    ca = settings.get("mqtt", {}).get("tls_ca", "") if cert else ""
    return Installed(
        f"{scheme}://{_bracketed(own)}:{address.port}",
        told.rstrip("/") or f"{scheme}://{_bracketed(public)}:{address.port}",
        root / unit.STATE_DIR.lstrip("/") / ADMIN_TOKEN_FILE,
        str(root / ca.lstrip("/")) if ca else "",
    )


def answers(broker: Installed, seconds: float) -> bool:
    """Return whether it is ready within so many seconds."""
    end = time.monotonic() + seconds
    while not _is_ready(broker.url):
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE)
    return True


def _is_ready(url: str) -> bool:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = (
        HTTPSConnection(parts.hostname, parts.port, timeout=5, context=_any_certificate())
        if parts.scheme == "https"
        else HTTPConnection(parts.hostname, parts.port, timeout=5)
    )
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _any_certificate() -> ssl.SSLContext:
    """Nothing secret is sent or believed: the question is whether something serves there."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _public_host(settings: dict[str, Any]) -> str:
    return urlsplit(str(settings.get("mqtt", {}).get("public_url", ""))).hostname or ""


def _hosts(root: Path, cert: str, bound: str, public: str) -> tuple[str, str]:
    """The names to reach it by: from this machine, and from others."""
    is_anywhere = bound in {"", "0.0.0.0", "::"}  # noqa: S104 compared, not bound
    names = _names(root / cert.lstrip("/")) if cert else []
    outward = public or next((name for name in names if name != "localhost" and "*" not in name), "")
    if not cert:
        own = "127.0.0.1" if is_anywhere else bound
        return own, (outward or own) if is_anywhere else bound
    own = "localhost" if "localhost" in names and (is_anywhere or bound.startswith("127.")) else ""
    own = own or (bound if bound in names else "") or outward or "localhost"
    return own, outward or own


def _names(cert: Path) -> list[str]:
    from thingctl_broker.security.certificate_authority import names_in  # noqa: PLC0415 heavy

    try:
        return list(names_in(cert.read_bytes()))
    except (OSError, ValueError):
        return []


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
