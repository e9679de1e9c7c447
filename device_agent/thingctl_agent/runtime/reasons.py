"""Why there is no connection and what to do next: from an error and the address to a sentence. Pure.

ssl's errors differ by their attributes, as an agent without TLS never loads ssl.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from thingctl_agent.runtime.address import BrokerAddress

NO_PASSWORD: Final = "no password was sent: set THINGCTL_PASSWORD or give --bundle FILE"  # noqa: S105 - a sentence
NEW_BUNDLE: Final = "after a rotation install the new bundle: thingctl-agent install --bundle FILE"

_GIVE_CA: Final = "give --ca FILE (tls.ca = …); the bundle holds it"
_CLOCK: Final = "is the clock of this device right?"
_UNREACHABLE: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_RESET: Final = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}
_NAME_MISMATCH: Final = {62, 64}
"""OpenSSL's X509_V_ERR codes: of a host name and of an address that the certificate does not name."""
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNTRUSTED: Final = {2, 18, 19, 20, 21}
_EOF: Final = "UNEXPECTED_EOF_WHILE_READING"
_NO_TLS: Final = {
    "WRONG_VERSION_NUMBER",
    _EOF,
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
}
_CERTIFICATE_ALERTS: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
}
_TLS_RECORDS: Final = (0x14, 0x15, 0x16)
"""First bytes of what a TLS server sends: change of cipher, alert, handshake."""

_CONNACK: Final = 2
_AUTHORISATION: Final = ("Bad user name or password", "Not authorized")


def not_opened(error: BaseException, address: BrokerAddress) -> str:
    """Say why a connection could not be opened. ``error``: what resolving, TCP or TLS raised."""
    if hasattr(error, "verify_code"):
        return _certificate(error, address)
    if isinstance(reason := getattr(error, "reason", None), str) and reason.isupper():
        return _handshake(reason, error, address)
    if type(error).__name__ == "SSLZeroReturnError":  # Debian 12's Python 3.11.2 has no reason for an EOF
        return _handshake(_EOF, error, address)
    if _is_name(error):
        return (
            f"the name {address.host!r} cannot be resolved: {_text(error)}; "
            "is it spelled right, and does this device have a network?"
        )
    return _tcp(error, address)


def refused(reason: str, address: BrokerAddress) -> str:
    """Say why the broker refused CONNECT. ``reason``: the name of its CONNACK code."""
    text = f"the broker refused the connection: {reason}"
    if reason in _AUTHORISATION:
        return f"{text}; {_credentials(address)}"
    if reason == "Unsupported protocol version":
        spoken = '5, set mqtt_version to "3.1.1"' if address.is_mqtt_5 else "3.1.1"
        return f"{text}; it has to speak MQTT {spoken}"
    if reason == "Client identifier not valid":
        return f"{text}; the client id is the thing's name, {address.client_id!r}"
    if reason == "Server unavailable":
        return f"{text}; the agent tries again"
    return text


def unanswered(first: bytes, address: BrokerAddress) -> str:
    """Say why there was no answer to CONNECT. ``first``: what the other side sent, if anything."""
    where = _where(address)
    if first.startswith(b"HTTP/"):
        return f"an HTTP server answers at {where}: url needs the broker's MQTT port"
    if first[:1] and first[0] in _TLS_RECORDS and not address.tls:
        return f"{where} speaks TLS: use mqtts://"
    if first and first[0] >> 4 != _CONNACK:
        return f"what answers at {where} is no MQTT broker"
    if not address.tls:
        return f"{where} closed the connection before it answered: if this port speaks TLS, use mqtts://"
    if not address.cert:
        return (
            f"{where} closed the connection before it answered: "
            "is this the MQTT port, and does the broker want a certificate of this device (--cert, --key)?"
        )
    return (
        f"{where} closed the connection before it answered: "
        "does the broker accept this device's certificate, and is this its MQTT port?"
    )


def silent(address: BrokerAddress) -> str:
    """Say that the other side took the connection and sent no answer in time."""
    cure = "" if address.tls else "; if this port speaks TLS, use mqtts://"
    return f"the broker did not answer CONNECT in time: is {_where(address)} its MQTT port?{cure}"


def _where(address: BrokerAddress) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _credentials(address: BrokerAddress) -> str:
    if not address.password and not address.cert:
        return NO_PASSWORD
    if not address.password:
        return f"is the certificate made for {address.client_id!r}, and is this thing registered and enabled?"
    if address.username != address.client_id:
        return (
            f"it did not take the password of user {address.username!r}; "
            f"a thingctl broker wants the thing's name, {address.client_id!r}, as the user name"
        )
    return f"it did not take the password of thing {address.client_id!r}; {NEW_BUNDLE}"


def _certificate(error: Any, address: BrokerAddress) -> str:
    code, text = error.verify_code, getattr(error, "verify_message", "") or str(error)
    where = _where(address)
    if code in _NAME_MISMATCH:
        return (
            f"the broker's certificate is not for {address.host!r}: use a name that it holds in url ({text})"
        )
    if code == _NOT_YET_VALID:
        return f"the certificate of {where} is not valid yet: {_CLOCK}"
    if code == _EXPIRED:
        return f"the certificate of {where} has expired: renew it at the broker, or {_CLOCK}"
    if code in _UNTRUSTED and not address.ca:
        return f"this device does not know the authority of {where}'s certificate ({text}): {_GIVE_CA}"
    if code in _UNTRUSTED:
        return (
            f"the certificate of {where} is not of the authority in tls.ca ({text}): "
            "has the broker got a new one? A new bundle holds it"
        )
    return f"the certificate of {where} is refused: {text}"


def _handshake(reason: str, error: BaseException, address: BrokerAddress) -> str:
    where = _where(address)
    if reason in _NO_TLS:
        return (
            f"{where} does not speak TLS ({reason}): use the broker's TLS port (often 8883), or mqtt:// here"
        )
    if reason in _CERTIFICATE_ALERTS:
        sent = "the one of tls.cert was refused" if address.cert else "none was sent: give --cert and --key"
        return f"{where} wants a certificate of this device that it trusts; {sent} ({reason})"
    if "PROTOCOL" in reason or "VERSION" in reason:
        return f"{where} speaks no TLS version from 1.2 on ({reason})"
    return f"no TLS connection to {where}: {_text(error)}"


def _is_name(error: BaseException) -> bool:
    return type(error).__name__ in {"gaierror", "herror"} or isinstance(error, UnicodeError)


def _tcp(error: BaseException, address: BrokerAddress) -> str:
    where, number = _where(address), getattr(error, "errno", None)
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refuses the connection: does the broker run there, and is the port right?"
    if isinstance(error, TimeoutError):
        return f"{where} does not answer: does a firewall stand between, and is the address right?"
    if number in _UNREACHABLE:
        return f"{where} cannot be reached: {_text(error)}; does this device have a network?"
    if number in _RESET and address.tls:
        return f"{where} closed the connection in the TLS handshake: if this port speaks no TLS, use mqtt://"
    return f"no connection to {where}: {_text(error)}"


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
