"""The certificate that a broker as a service is given: a copy of what there is, or one made here."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from thingctl_broker.cli import unit
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings_file import SettingKey
from thingctl_broker.cli.steps import Step, copy, put, told
from thingctl_broker.security.certificate_authority import (
    CA_CERT,
    CA_KEY,
    SERVER_CERT,
    SERVER_KEY,
    Authority,
    PkiError,
    names_in,
    utc_now,
)

if TYPE_CHECKING:
    from pathlib import Path

    from thingctl_broker.cli.steps import Target

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


def settings(*, has_ca: bool) -> dict[SettingKey, str]:
    """Return the settings that make the broker serve by TLS with the files in ``/etc/thingctl/tls``."""
    cert, key = f"{unit.TLS}/{SERVER_CERT}", f"{unit.TLS}/{SERVER_KEY}"
    values = {
        SettingKey("mqtt", "tls_cert"): cert,
        SettingKey("mqtt", "tls_key"): key,
        SettingKey("http", "tls_cert"): cert,
        SettingKey("http", "tls_key"): key,
    }
    if has_ca:
        ca = f"{unit.TLS}/{CA_CERT}"
        values |= {SettingKey("mqtt", "tls_client_ca"): ca, SettingKey("mqtt", "tls_ca"): ca}
    return values


def copied(source: Path, target: Target) -> list[Step]:
    """Return the steps that copy a folder of ``thingctl tls init``; raises :class:`Failure`.

    The key of the authority is not copied: the broker does not need it.
    """
    for name in (SERVER_CERT, SERVER_KEY):
        if not (source / name).is_file():
            raise Failure(
                Exit.USAGE,
                f"--tls-dir {source}: there is no {name}; thingctl tls init --dir {source} makes the files",
            )
    files = [(SERVER_CERT, 0o644), (SERVER_KEY, 0o640)]
    if (source / CA_CERT).is_file():
        files.append((CA_CERT, 0o644))
    return [copy(target, source / name, f"{unit.TLS}/{name}", mode) for name, mode in files]


def made(target: Target, public_url: str) -> list[Step]:
    """Return the steps that give the broker a certificate by an authority of its own.

    What is there already stays. A certificate that lacks the name in ``public_url`` is made anew by
    the same authority.
    """
    names = wanted_names(public_url)
    folder = target.path(unit.TLS)
    cert = folder / SERVER_CERT
    if not cert.exists():
        text = f"make a private authority and a certificate for {', '.join(names)} in {folder}"
        return [Step(text, lambda: _make(target, names))]
    try:
        has = names_in(cert.read_bytes())
    except ValueError:
        raise Failure(Exit.USAGE, f"{cert} is no certificate in PEM: remove it, or give --tls-dir") from None
    if names[0] in has or not public_url:
        return [told(f"keep {folder} (for {', '.join(has)})")]
    if not (folder / CA_KEY).exists():
        raise Failure(
            Exit.USAGE,
            f"{cert} is not for {names[0]}: devices would refuse it. Give one that is with --tls-dir",
        )
    names = [*names, *(name for name in has if name not in names)]
    text = f"make another certificate by the same authority, for {', '.join(names)}"
    return [Step(text, lambda: _sign(target, names))]


def wanted_names(public_url: str) -> list[str]:
    """Return the names that people and devices call this machine by; the public one first."""
    names = [urlsplit(public_url).hostname or "", socket.gethostname(), *LOCAL_NAMES]
    return list(dict.fromkeys(filter(None, names)))


def _make(target: Target, names: list[str]) -> None:
    authority = Authority.make(utc_now())
    pair = authority.pair()
    put(target, f"{unit.TLS}/{CA_KEY}", pair.key, 0o600)
    put(target, f"{unit.TLS}/{CA_CERT}", pair.cert, 0o644)
    _sign(target, names)


def _sign(target: Target, names: list[str]) -> None:
    try:
        pair = Authority.load(target.path(unit.TLS)).server(names, utc_now())
    except PkiError as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    put(target, f"{unit.TLS}/{SERVER_KEY}", pair.key, 0o640)
    put(target, f"{unit.TLS}/{SERVER_CERT}", pair.cert, 0o644)
