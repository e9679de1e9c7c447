"""The form of the journal's bytes: sectors, blocks and segments. Pure.

A segment is a header (two equal sectors) and then blocks, each padded to whole
sectors, so no write touches what an earlier one has made durable. Where a block
is damaged, the next sector that begins a block of the same segment is looked for.

::

    header  "tcJ1"  generation u32  size u32      salt 8 bytes  crc32 u32
    block   "tcJb"  generation u32  length u32    crc32 u32   records, MessagePack

The checksum covers the generation and the salt, which is random: neither what an
earlier use of the segment left behind nor bytes that a request brings can pass for a block.
"""

from __future__ import annotations

import struct
from binascii import crc32
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from thingctl_agent.core.history import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

Bytes = bytes | memoryview

SECTOR: Final = 512
HEADER_SECTORS: Final = 2
_HEADER: Final = struct.Struct("<4sII8sI")
_BLOCK: Final = struct.Struct("<4sIII")
_HEADER_MAGIC: Final = b"tcJ1"
_BLOCK_MAGIC: Final = b"tcJb"
_BODY_MAX: Final = 64 * 1024
"""Bytes of one block of a snapshot; damage to a block costs no more than it holds."""

_records: Final = msgspec.msgpack.Decoder(list[Record])


class JournalIdentity(NamedTuple):
    """What tells one use of a segment from every other. ``size``: of the segment, in bytes."""

    generation: int
    salt: bytes
    size: int = 0

    @property
    def seed(self) -> int:
        """Where its checksums start."""
        return crc32(self.salt, self.generation & 0xFFFFFFFF)


class Scan(NamedTuple):
    """What a segment holds. ``end``: where the next block goes. ``damaged``: blocks or sectors given up."""

    records: list[Record]
    end: int
    damaged: int
    torn: bool


def header(identity: JournalIdentity) -> bytes:
    """The two sectors that open a segment."""
    raw = _HEADER.pack(_HEADER_MAGIC, identity.generation, identity.size, identity.salt, 0)[:-4]
    return (raw + crc32(raw).to_bytes(4, "little")).ljust(SECTOR, b"\0") * HEADER_SECTORS


def read_header(segment: Bytes) -> JournalIdentity | None:
    """Who uses this segment; ``None`` when neither copy of its header is whole."""
    for start in range(0, HEADER_SECTORS * SECTOR, SECTOR):
        raw = segment[start : start + _HEADER.size]
        if len(raw) == _HEADER.size and raw[:4] == _HEADER_MAGIC:
            _, generation, size, salt, crc = _HEADER.unpack(raw)
            if crc32(raw[:-4]) == crc:
                return JournalIdentity(generation, salt, size)
    return None


def block(identity: JournalIdentity, records: list[Record]) -> bytes:
    """Some records as they go to the disk: whole sectors."""
    body = msgspec.msgpack.encode(records)
    crc = crc32(body, crc32(len(body).to_bytes(4, "little"), identity.seed))
    raw = _BLOCK.pack(_BLOCK_MAGIC, identity.generation & 0xFFFFFFFF, len(body), crc) + body
    return raw.ljust(-(-len(raw) // SECTOR) * SECTOR, b"\0")


def blocks(identity: JournalIdentity, records: Iterable[Record]) -> bytes:
    """Many records as they go to the disk, in blocks of bounded size."""
    out = bytearray()
    batch: list[Record] = []
    size = 0
    for record in records:
        length = len(msgspec.msgpack.encode(record))
        if batch and size + length > _BODY_MAX:
            out += block(identity, batch)
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        out += block(identity, batch)
    return bytes(out)


def scan(segment: Bytes, identity: JournalIdentity) -> Scan:
    """Read a segment as far as it is whole, and past what is not."""
    start = _BLOCK.pack(_BLOCK_MAGIC, identity.generation & 0xFFFFFFFF, 0, 0)[:8]
    records: list[Record] = []
    end = position = HEADER_SECTORS * SECTOR
    damaged = 0
    skipped = False
    while position + SECTOR <= len(segment):
        found = _read_block(segment, position, identity)
        if found is None:
            skipped = skipped or segment[position : position + 8] == start
            position += SECTOR
            continue
        damaged += end != position
        skipped = False
        records += found[0]
        end = position = found[1]
    return Scan(records, end, damaged, skipped)


def _read_block(segment: Bytes, position: int, identity: JournalIdentity) -> tuple[list[Record], int] | None:
    magic, generation, length, crc = _BLOCK.unpack_from(segment, position)
    begin = position + _BLOCK.size
    if magic != _BLOCK_MAGIC or generation != identity.generation & 0xFFFFFFFF:
        return None
    if begin + length > len(segment):
        return None
    body = segment[begin : begin + length]
    if crc32(body, crc32(length.to_bytes(4, "little"), identity.seed)) != crc:
        return None
    try:
        records = _records.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # a checksum of 32 bits may match by chance
    return records, -(-(begin + length) // SECTOR) * SECTOR
