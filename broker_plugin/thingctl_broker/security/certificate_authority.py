"""A small certificate authority of one's own: keys, and certificates for the broker and for things.

For those who have none. Keys are EC P-256; the CA signs for ten years, the broker's
certificate for 825 days (what strict clients take at the most), a thing's for ten years.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thingctl_broker.system.files import NewFile, make_private_directory

if TYPE_CHECKING:
    from pathlib import Path

CA: Final = "ca"
SERVER: Final = "server"
CA_CERT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
SERVER_CERT: Final = "server.crt"
SERVER_KEY: Final = "server.key"

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 825
THING_DAYS: Final = 3650
_BACKDATED: Final = timedelta(hours=1)  # clocks differ


class PkiError(Exception):
    """The authority's files cannot be used; the text says why."""


class Pair(NamedTuple):
    """A certificate and its key, both in PEM."""

    cert: bytes
    key: bytes


class Authority:
    """Signs certificates."""

    def __init__(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._cert = cert
        self._key = key

    @classmethod
    def make(cls, now: datetime) -> Authority:
        """Make a new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "thingctl private CA")])
        cert = (
            _builder(name, name, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(cert, key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Read the one in ``directory``; raises :class:`PkiError`."""
        try:
            cert = x509.load_pem_x509_certificate((directory / CA_CERT).read_bytes())
            key = serialization.load_pem_private_key((directory / CA_KEY).read_bytes(), None)
        except OSError as error:
            raise PkiError(f"{error.filename} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError) as error:
            raise PkiError(f"{directory}: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PkiError(f"{directory / CA_KEY} is not a key that thingctl has made")
        return cls(cert, key)

    def pair(self) -> Pair:
        """Its own certificate and key."""
        return Pair(self._cert.public_bytes(serialization.Encoding.PEM), _pem(self._key))

    def server(self, names: list[str], now: datetime) -> Pair:
        """Sign for a broker that is reached by ``names``: host names and addresses."""
        return self._sign(
            names[0], [_general(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, now, SERVER_DAYS
        )

    def thing(self, name: str, now: datetime) -> Pair:
        """Sign for a thing: its name is the common name."""
        return self._sign(name, [], ExtendedKeyUsageOID.CLIENT_AUTH, now, THING_DAYS)

    def _sign(
        self,
        common_name: str,
        names: list[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: datetime,
        days: int,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        # A common name has 64 characters at the most. A longer name stands among the alternative
        # ones only: cut, it could be another thing's.
        fits = len(common_name) <= 64
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if fits else [])
        if not fits and not names:
            names = [x509.DNSName(common_name)]
        builder = (
            _builder(subject, self._cert.subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not fits)
        cert = builder.sign(self._key, hashes.SHA256())
        return Pair(cert.public_bytes(serialization.Encoding.PEM), _pem(key))


def names_in(cert: bytes) -> tuple[str, ...]:
    """For which names a certificate in PEM stands: host names, then addresses; of a chain, its first one.

    Raises ValueError for what is no certificate.
    """
    try:
        names = (
            x509.load_pem_x509_certificate(cert)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
    except x509.ExtensionNotFound:
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    return (*hosts, *map(str, names.get_values_for_type(x509.IPAddress)))


def write_pair(directory: Path, name: str, pair: Pair, *, replaces: bool = False) -> None:
    """Write ``name.key`` and ``name.crt``, mode 0600: both, or none where the disk has no room.

    Raises :class:`PkiError`, also where one is there already and the pair ``replaces`` none.
    """
    key, cert = directory / f"{name}.key", directory / f"{name}.crt"
    try:
        make_private_directory(directory)
        with NewFile(key, replaces=replaces) as key_file, NewFile(cert, replaces=replaces) as cert_file:
            key_file.write(pair.key)
            cert_file.write(pair.cert)
            key_file.keep()
            cert_file.keep()
    except FileExistsError:
        there = key if key.exists() else cert
        raise PkiError(f"{there} is there already; it is not overwritten") from None
    except OSError as error:
        raise PkiError(f"{key} and {cert.name} cannot be written: {error.strerror}") from None


def utc_now() -> datetime:
    """The time to sign at."""
    return datetime.now(UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
