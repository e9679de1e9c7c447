"""The private authority."""

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thingctl_broker.security.certificate_authority import (
    SERVER_DAYS,
    Authority,
    PkiError,
    names_in,
    utc_now,
    write_pair,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def load(pair):
    return x509.load_pem_x509_certificate(pair.cert)


@pytest.fixture(scope="module")
def authority():
    return Authority.make(NOW)


def test_the_server_certificate_is_for_its_names_and_by_the_ca(authority):
    cert = load(authority.server(["broker.example", "192.0.2.1", "::1"], NOW))
    cert.verify_directly_issued_by(load(authority.pair()))
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "::1"]
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert cert.not_valid_after_utc == NOW + timedelta(days=SERVER_DAYS)
    assert cert.not_valid_before_utc < NOW


def test_a_things_certificate_bears_its_name_and_signs_nothing(authority):
    cert = load(authority.thing("lamp", NOW))
    assert [a.value for a in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["lamp"]
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_long_name_is_not_cut_into_anothers(authority):
    name = "x" * 128
    cert = load(authority.thing(name, NOW))
    assert list(cert.subject) == []
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]


def test_what_is_written_is_read_again_and_never_overwritten(authority, tmp_path):
    directory = tmp_path / "tls"
    pair = authority.pair()
    write_pair(directory, "ca", pair)
    assert Authority.load(directory).pair().cert == pair.cert
    assert stat.S_IMODE((directory / "ca.key").stat().st_mode) == 0o600
    with pytest.raises(PkiError, match="not overwritten"):
        write_pair(directory, "ca", Authority.make(utc_now()).pair())
    assert Authority.load(directory).pair().cert == pair.cert
    context = ssl.create_default_context(cafile=directory / "ca.crt")
    assert context.cert_store_stats()["x509_ca"] == 1
    (directory / "ca.key").write_text("damaged")
    with pytest.raises(PkiError):
        Authority.load(directory)
    with pytest.raises(PkiError):
        Authority.load(tmp_path)


@pytest.mark.parametrize("room", [0, 1])
@pytest.mark.parametrize("replaces", [True, False])
def test_a_pair_is_written_whole_or_not_at_all(tmp_path, monkeypatch, replaces, room):
    authority = Authority.make(utc_now())
    if replaces:
        write_pair(tmp_path, "server", authority.server(["old"], utc_now()))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    new, flush, taken = authority.server(["new"], utc_now()), os.fsync, 0

    def full(handle):
        nonlocal taken
        taken += 1
        if taken > room:
            raise OSError(28, "No space left on device")
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(PkiError, match="No space left"):
            write_pair(tmp_path, "server", new, replaces=replaces)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_pair(tmp_path, "server", new, replaces=replaces)
    assert {path.name for path in tmp_path.iterdir()} == {"server.crt", "server.key"}
    assert names_in((tmp_path / "server.crt").read_bytes()) == ("new",)
