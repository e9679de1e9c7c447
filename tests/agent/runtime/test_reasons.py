"""Each error on the way to the broker, with what was configured, and the sentence that says what to do."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from thingctl_agent.runtime.address import BrokerAddress
from thingctl_agent.runtime.reasons import not_opened, refused, silent, unanswered

PLAIN = BrokerAddress("b.example", 1883, "pump-1")
TLS = BrokerAddress("b.example", 8883, "pump-1", tls=True)
WITH_CA = TLS._replace(ca=True)
WITH_CERT = TLS._replace(cert=True)
SIGNED_IN = PLAIN._replace(username="pump-1", password="p")


def unverified(code, text):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, text
    return error


def handshake(reason):
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1006)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "address", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), PLAIN, "b.example:1883 refuses the connection"),
        (TimeoutError("timed out"), PLAIN, "b.example:1883 does not answer: does a firewall"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), PLAIN, "cannot be reached: No route to host"),
        (OSError(errno.ENETUNREACH, "x"), PLAIN, "does this device have a network?"),
        (ConnectionResetError(errno.ECONNRESET, "x"), TLS, "if this port speaks no TLS, use mqtt://"),
        (
            socket.gaierror(-2, "Name or service not known"),
            PLAIN,
            "the name 'b.example' cannot be resolved: Name",
        ),
        (UnicodeError("label too long"), PLAIN, "the name 'b.example' cannot be resolved: label too long"),
        (unverified(19, "self-signed"), TLS, "give --ca FILE (tls.ca = …); the bundle holds it"),
        (unverified(20, "unable to get local issuer"), TLS, "give --ca FILE"),
        (unverified(19, "self-signed"), WITH_CA, "is not of the authority in tls.ca"),
        (unverified(62, "Hostname mismatch"), WITH_CA, "the broker's certificate is not for 'b.example'"),
        (unverified(64, "IP address mismatch"), WITH_CA, "use a name that it holds in url"),
        (unverified(10, "expired"), WITH_CA, "has expired: renew it"),
        (unverified(9, "not yet valid"), WITH_CA, "is the clock of this device right?"),
        (unverified(23, "certificate revoked"), WITH_CA, "is refused: certificate revoked"),
        (handshake("WRONG_VERSION_NUMBER"), TLS, "b.example:8883 does not speak TLS"),
        (handshake("UNEXPECTED_EOF_WHILE_READING"), TLS, "does not speak TLS"),
        (ssl.SSLZeroReturnError(6, "has been closed (EOF)"), TLS, "does not speak TLS"),
        (handshake("TLSV1_ALERT_UNKNOWN_CA"), WITH_CERT, "the one of tls.cert was refused"),
        (handshake("TLSV13_ALERT_CERTIFICATE_REQUIRED"), TLS, "none was sent: give --cert and --key"),
        (handshake("TLSV1_ALERT_PROTOCOL_VERSION"), TLS, "speaks no TLS version from 1.2 on"),
        (handshake("SOMETHING_ELSE"), TLS, "no TLS connection to b.example:8883: "),
        (ValueError("Invalid host."), PLAIN, "no connection to b.example:1883: Invalid host."),
        (OSError(), PLAIN, "no connection to b.example:1883: OSError"),
        (ConnectionRefusedError(), PLAIN._replace(host="::1"), "[::1]:1883 refuses"),
    ],
)
def test_a_connection_that_cannot_be_opened(error, address, text):
    assert text in not_opened(error, address)


@pytest.mark.parametrize("reason", ["Not authorized", "Bad user name or password"])
@pytest.mark.parametrize(
    ("address", "text"),
    [
        (PLAIN, "no password was sent: set THINGCTL_PASSWORD or give --bundle FILE"),
        (PLAIN._replace(username="pump-1"), "no password was sent"),
        (
            SIGNED_IN,
            "it did not take the password of thing 'pump-1'; after a rotation install the new bundle",
        ),
        (SIGNED_IN._replace(username="admin"), "wants the thing's name, 'pump-1', as the user name"),
        (WITH_CERT, "is the certificate made for 'pump-1'"),
    ],
)
def test_a_broker_that_lets_nobody_in_without_the_right_credentials(reason, address, text):
    said = refused(reason, address)
    assert said.startswith(f"the broker refused the connection: {reason}; ")
    assert text in said
    assert "'p'" not in said


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("Unsupported protocol version", "MQTT 3.1.1"),
        ("Client identifier not valid", "'pump-1'"),
        ("Server unavailable", "tries again"),
        ("Something new", "the broker refused the connection: Something new"),
    ],
)
def test_other_refusals(reason, text):
    assert text in refused(reason, PLAIN)


@pytest.mark.parametrize(
    ("first", "address", "text"),
    [
        (b"", PLAIN, "if this port speaks TLS, use mqtts://"),
        (b"\x15\x03\x01\x00\x02\x02\x46", PLAIN, "b.example:1883 speaks TLS: use mqtts://"),
        (b"HTTP/1.1", PLAIN, "an HTTP server answers at b.example:1883"),
        (b"SSH-2.0", PLAIN, "is no MQTT broker"),
        (
            b"",
            TLS,
            "is this the MQTT port, and does the broker want a certificate of this device (--cert, --key)?",
        ),
        (b"", WITH_CERT, "does the broker accept this device's certificate"),
    ],
)
def test_a_connection_that_ends_before_the_answer(first, address, text):
    assert text in unanswered(first, address)


def test_a_connection_that_stays_silent():
    assert "use mqtts://" in silent(PLAIN)
    assert "mqtts" not in silent(TLS)
