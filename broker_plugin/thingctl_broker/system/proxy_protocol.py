"""The PROXY protocol, versions 1 and 2: what a proxy writes before a connection's own bytes.

Pure: bytes in, the client's address out. What follows the addresses in a version 2 header
(TLVs) is skipped.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple, TypeAlias

Peer: TypeAlias = tuple[str, int]
"""Address and port of a client."""

HEADER_MAX: Final = 4096
"""Bytes of the longest header that is taken."""

_LINE: Final = b"PROXY "
_LINE_MAX: Final = 107
"""Bytes of the longest version 1 header, its end of line included."""

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
"""Bytes of a version 2 header before its addresses."""

_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_NAMELESS: Final = frozenset({0x00, 0x31})
"""Families whose clients have no IP address: unspecified, and Unix stream sockets."""

_BYTES: Final = {_TCP4: 4, _TCP6: 16}
_PORT_MAX: Final = 0xFFFF


class ProxyHeaderError(Exception):
    """The bytes are no header. ``is_missing``: they do not even begin as one."""

    def __init__(self, text: str, *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.is_missing = is_missing


class Header(NamedTuple):
    """A header of ``length`` bytes. ``peer``: the client; None: the header names none."""

    length: int
    peer: Peer | None


def read_header(data: bytes) -> Header | None:
    r"""Read the header that ``data`` begins with; None: all of ``data`` is header, and more has to come.

    Raises :class:`ProxyHeaderError`.

    >>> read_header(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\r\n...")
    Header(length=43, peer=('192.0.2.7', 40000))
    """
    if data[: len(_LINE)] == _LINE[: len(data)]:
        return _read_line(data)
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_binary(data)
    raise ProxyHeaderError("the connection does not begin with a PROXY header", is_missing=True)


def _read_line(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _LINE_MAX)
    if end < 0:
        if len(data) >= _LINE_MAX:
            raise ProxyHeaderError(f"a version 1 header is longer than {_LINE_MAX} bytes")
        return None
    words = data[:end].split(b" ")
    peer = None if words[1] == b"UNKNOWN" else _peer_of(words)
    return Header(end + 2, peer)


def _peer_of(words: list[bytes]) -> Peer:
    """The client in ``PROXY TCP4 CLIENT SERVER CLIENT-PORT SERVER-PORT``."""
    try:
        _, family, *hosts, client_port, server_port = (word.decode("ascii") for word in words)
        client, _ = [_host(family, host) for host in hosts]
        _port(server_port)
        return client, _port(client_port)
    except ValueError:
        raise ProxyHeaderError("a version 1 header names no two TCP addresses") from None


def _host(family: str, text: str) -> str:
    if family == "TCP4":
        return str(ipaddress.IPv4Address(text))
    if family == "TCP6" and "%" not in text:
        return str(ipaddress.IPv6Address(text))
    raise ValueError(family)


def _port(text: str) -> int:
    if not text.isdigit() or str(int(text)) != text or int(text) > _PORT_MAX:
        raise ValueError(text)
    return int(text)


def _read_binary(data: bytes) -> Header | None:
    if len(data) < _FIXED:
        return None
    version, command = divmod(data[12], 16)
    family, length = data[13], _FIXED + int.from_bytes(data[14:16], "big")
    if version != _VERSION or command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError(f"byte 13 of a version 2 header is 0x{data[12]:02x}")
    if length > HEADER_MAX:
        raise ProxyHeaderError(f"a version 2 header is longer than {HEADER_MAX} bytes")
    if command == _PROXY and family not in _NAMELESS and family not in _BYTES:
        raise ProxyHeaderError(f"the family of a version 2 header is 0x{family:02x}")
    if len(data) < length:
        return None
    if command == _LOCAL or family in _NAMELESS:
        return Header(length, None)
    return Header(length, _address_in(data[_FIXED:length], _BYTES[family]))


def _address_in(addresses: bytes, size: int) -> Peer:
    """The client in two addresses of ``size`` bytes, followed by two ports."""
    if len(addresses) < 2 * size + 4:
        raise ProxyHeaderError("a version 2 header is too short for its addresses")
    port = int.from_bytes(addresses[2 * size : 2 * size + 2], "big")
    return str(ipaddress.ip_address(addresses[:size])), port
