"""Contexts of listeners."""

import os
import ssl

import pytest

from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tls import ALPN, ServerTls, TlsError


@pytest.fixture
def made(tmp_path):
    authority = Authority.make(utc_now())
    pair = authority.server(["localhost"], utc_now())
    (tmp_path / "s.crt").write_bytes(pair.cert)
    (tmp_path / "s.key").write_bytes(pair.key)
    return authority, tmp_path


def test_a_renewed_pair_is_taken_up_and_a_wrong_one_is_not(made, log):
    authority, directory = made
    listener = ServerTls(str(directory / "s.crt"), str(directory / "s.key"))
    assert not listener.look()
    pair = authority.server(["localhost"], utc_now())
    (directory / "s.crt").write_bytes(pair.cert)
    os.utime(directory / "s.crt", ns=(1, 1))
    assert not listener.look()  # its key is not there yet
    (directory / "s.key").write_bytes(pair.key)
    assert listener.look()
    assert not listener.look()
    (directory / "s.crt").unlink()
    assert not listener.look()


@pytest.fixture
def log(caplog):
    return caplog


def test_one_file_may_hold_both(made):
    _, directory = made
    both = directory / "both.pem"
    both.write_bytes((directory / "s.crt").read_bytes() + (directory / "s.key").read_bytes())
    ServerTls(str(both), "")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_cannot_be_used_is_named(made, content):
    _, directory = made
    path = directory / "other.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TlsError, match=r"other\.crt"):
        ServerTls(str(path), str(directory / "s.key"))
    with pytest.raises(TlsError, match=r"other\.crt"):
        ServerTls(str(directory / "s.crt"), str(directory / "s.key"), str(path))


def shake_hands(server, client):
    """Let both contexts meet in memory; return the protocol that the client got by ALPN."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname="localhost"),
        server.wrap_bio(there, back, server_side=True),
    ]
    for end in ends * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ends[0].selected_alpn_protocol()


@pytest.mark.parametrize(
    ("asked", "given"), [(["mqtt"], "mqtt"), (["h2", "mqtt"], "mqtt"), (["h2"], None), ([], None)]
)
def test_a_client_that_asks_by_alpn_gets_mqtt_and_others_are_served_too(made, asked, given):
    authority, directory = made
    server = ServerTls(str(directory / "s.crt"), str(directory / "s.key"), alpn=(ALPN,))
    client = ssl.create_default_context(cadata=authority.pair().cert.decode())
    if asked:
        client.set_alpn_protocols(asked)
    assert shake_hands(server.context, client) == given
