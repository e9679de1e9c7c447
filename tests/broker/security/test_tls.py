"""Contexts of listeners."""

import os

import pytest

from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tls import ServerTls, TlsError


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
