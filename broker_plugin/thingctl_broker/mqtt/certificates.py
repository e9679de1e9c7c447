"""The names in a client's TLS certificate, which the handshake has verified."""

from __future__ import annotations

from typing import Any


def names_of(certificate: Any) -> tuple[str, ...]:
    """The common name and the DNS names of a certificate as ``SSLSocket.getpeercert()`` tells it.

    >>> names_of({"subject": ((("commonName", "lamp"),),), "subjectAltName": (("DNS", "lamp"), ("DNS", "a"))})
    ('lamp', 'a')
    """
    if not certificate:
        return ()
    common = (
        value
        for attributes in certificate.get("subject", ())
        for name, value in attributes
        if name == "commonName"
    )
    alternative = (value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    return tuple(dict.fromkeys((*common, *alternative)))
