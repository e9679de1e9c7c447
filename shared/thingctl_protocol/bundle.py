"""The one file with which a device is enrolled: who it is, where its broker is, and how it proves both.

JSON in UTF-8. ``thingctl things add NAME --bundle FILE`` writes it, ``thingctl-agent install
--bundle FILE`` reads it. It holds secrets: its mode is 0600, and it goes when it was used.

>>> bundle = Bundle("thermostat-001", "mqtt://127.0.0.1:1883", username="thermostat-001", password="…")
>>> decode_bundle(encode_bundle(bundle)) == bundle
True
"""

from __future__ import annotations

from typing import Final

import msgspec

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import check_thing_name
from thingctl_protocol.topics import DEFAULT_ROOT, Topics

VERSION: Final = 1
"""Of the format. A reader refuses a newer one, and ignores fields that it does not know."""

BUNDLE_MAX: Final = 64 * 1024
"""Bytes."""


class Bundle(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=False):
    """What a device needs to know. ``ca``, ``cert`` and ``key`` are texts in PEM.

    ``url``: ``mqtt://host:port``, or ``mqtts://`` for TLS. ``ca``: whom to trust for TLS; empty:
    the system's authorities. ``cert`` and ``key``: the device's own, instead of a password or
    beside it. ``presence``: whether to tell when the device comes and goes, for brokers behind a
    cluster that does not.
    """

    thing: str
    url: str
    username: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    topic_root: str = DEFAULT_ROOT
    presence: bool = False


class _Versioned(Bundle, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    thingctl_bundle: int


def encode_bundle(bundle: Bundle) -> bytes:
    """Encode a bundle, indented, for a file; raises :class:`ProtocolError` when it cannot be one."""
    _check(bundle)
    fields = {"thingctlBundle": VERSION} | msgspec.to_builtins(bundle)
    return msgspec.json.format(msgspec.json.encode(fields)) + b"\n"


def decode_bundle(content: bytes) -> Bundle:
    """Decode the content of a bundle file; raises :class:`ProtocolError`."""
    if len(content) > BUNDLE_MAX:
        raise ProtocolError(f"a bundle has at most {BUNDLE_MAX} bytes")
    try:
        found = msgspec.json.decode(content, type=_Versioned)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"this is no bundle of thingctl: {error}") from None
    if found.thingctl_bundle > VERSION:
        raise ProtocolError("the bundle was made by a newer version of thingctl", "/thingctlBundle")
    bundle = Bundle(*(getattr(found, name) for name in Bundle.__struct_fields__))
    _check(bundle)
    return bundle


def _check(bundle: Bundle) -> None:
    check_thing_name(bundle.thing, "/thing")
    if not bundle.url.startswith(("mqtt://", "mqtts://")) or not bundle.url.isprintable():
        raise ProtocolError("the url is mqtt://host:port or mqtts://host:port", "/url")
    if bool(bundle.cert) != bool(bundle.key):
        raise ProtocolError("a certificate comes with its key", "/key")
    Topics(bundle.topic_root)
