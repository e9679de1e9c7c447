"""Why no broker answered, and what to do next."""

from __future__ import annotations

import os
import socket
import ssl
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

from thingctl_broker.system.addresses import is_loopback

PROBE: Final = 1.0
"""Seconds to find out whether a port speaks TLS."""

_MQTT_PORT: Final = "is this the MQTT port? The HTTP port is 8080 by default"

_UNTRUSTED: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's verify codes of certificates by an authority that is not trusted."""

_OTHER_NAME: Final = frozenset({62, 64})
"""OpenSSL's verify codes of certificates for another host name or address."""

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def explain(url: str, error: OSError | HTTPException) -> str:
    """One sentence about a request to ``url`` that had no answer: the reason and the next step."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(url, error)
    if isinstance(error, ssl.SSLError):
        return _of_tls(url, error)
    if isinstance(error, socket.gaierror):
        return f"cannot find the host {urlsplit(url).hostname!r} of {url}: {_reason(error)}{_proxy_note()}"
    if isinstance(error, HTTPException | ConnectionResetError | BrokenPipeError):
        return _of_silence(url)
    return f"cannot reach the broker at {url}: {_reason(error)}{_next_step(url, error)}{_proxy_note()}"


def lost(url: str, error: OSError | HTTPException) -> str:
    """One sentence about a broker that has answered before and now breaks off."""
    return f"the connection to the broker at {url} was lost: {_reason(error)}"


def is_local(url: str) -> bool:
    """Whether ``url`` leads to this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def _of_certificate(url: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNTRUSTED:
        return (
            f"the certificate of {url} is by an authority that is not trusted ({error.verify_message}): "
            "set THINGCTL_CA to the file with the authority's certificate (ca.crt of thingctl tls init)"
        )
    if error.verify_code in _OTHER_NAME:
        return (
            f"the certificate of {url} is for another name: {error.verify_message} "
            "Use a name of the certificate in the URL, or make one: thingctl tls server --name HOST"
        )
    return f"the certificate of {url} is not valid: {error.verify_message}"


def _of_tls(url: str, error: ssl.SSLError) -> str:
    if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"}:
        return f"the port of {url} does not speak TLS: use http:// instead of https://"
    reason = (error.reason or "the peer closed the connection").lower().replace("_", " ")
    return f"no TLS connection to {url} ({reason}): does this port speak TLS, and HTTP? {_hint_of_ports()}"


def _of_silence(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "http" and _speaks_tls(parts.hostname or "", parts.port or 80):
        return f"the port of {url} speaks TLS: use https:// instead of http://"
    return f"what listens at {url} closed the connection without an HTTP answer: {_MQTT_PORT}"


def _hint_of_ports() -> str:
    return "The HTTP port is 8080 by default, the MQTT ports are others"


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; the question is whether there is TLS
    try:
        with socket.create_connection((host, port), PROBE) as sock, context.wrap_socket(sock):
            return True
    except OSError:
        return False


def _next_step(url: str, error: OSError | HTTPException) -> str:
    if not isinstance(error, ConnectionRefusedError):
        return ""
    if is_local(url):
        return "; start a broker (thingctl serve), or name another one with --url or THINGCTL_URL"
    return "; is the broker running, and is this its HTTP port?"


def _proxy_note() -> str:
    found = next((name for name in _PROXIES if os.environ.get(name)), None)
    return "" if found is None else f" ({found} is set, but thingctl uses no proxy)"


def _reason(error: OSError | HTTPException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
