"""How far the journal has been written, noted outside it. Pure.

Damage at the journal's end looks like a shorter journal, and damage to its newest header like an
older one; the bookmark tells them apart. It stands in the file of the lock and is not
flushed: in one boot it is exact, and after a power cut it may be older, never newer, than what
the journal had flushed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SIZE: Final = 128
"""Bytes."""

_MAGIC: Final = "thingctl-bookmark-1"


class Bookmark(NamedTuple):
    """``generation``: of the segment in use. ``end``: its bytes written; ``flushed``: those on the disk."""

    boot_id: str
    generation: int
    end: int
    flushed: int

    def encode(self) -> bytes:
        """One line of :data:`SIZE` bytes."""
        boot_id = self.boot_id or "-"
        return f"{_MAGIC} {boot_id} {self.generation} {self.end} {self.flushed}".encode().ljust(SIZE)

    def missing(self, boot_id: str, generation: int, end: int) -> str:
        """What a journal that was read as far as ``end`` of ``generation`` lacks; ``""``: nothing."""
        if generation < self.generation:
            return "its newest part cannot be read"
        wanted = self.end if boot_id and boot_id == self.boot_id else self.flushed
        if generation == self.generation and end < wanted:
            return f"the last {wanted - end} bytes cannot be read"
        return ""


def decode(raw: bytes) -> Bookmark | None:
    """Read a bookmark; ``None`` when there is none, as beside a journal of an older version.

    >>> decode(Bookmark("boot-1", 2, 4096, 3584).encode())
    Bookmark(boot_id='boot-1', generation=2, end=4096, flushed=3584)
    >>> decode(b"") is None
    True
    """
    words = raw.decode("ascii", "replace").split()
    if len(words) != 5 or words[0] != _MAGIC or not all(word.isdecimal() for word in words[2:]):
        return None
    return Bookmark("" if words[1] == "-" else words[1], *map(int, words[2:]))
