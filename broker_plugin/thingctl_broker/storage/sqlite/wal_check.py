"""Whether SQLite's write-ahead log has lost commits in its middle.

SQLite reads a log up to the first frame that does not add up and takes the rest as never
written: that is how a commit looks which a crash has cut short. But each commit is flushed
before the next begins, so a crash cuts short the last one only. Where more follow, the
frame was damaged later, and commits that somebody was told of would be gone without a word.

The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

COMMITS_CUT_SHORT_MAX: Final = 3
"""Commits behind the first bad frame that may be nobody's: the one that was cut short, and
what is left of others that failed on their way to the disk and were written anew."""

_MAGIC: Final = {0x377F0682: "<", 0x377F0683: ">"}
_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MASK: Final = 0xFFFFFFFF

_Sums = tuple[int, int]


class _Log(NamedTuple):
    order: str
    page_size: int
    salts: _Sums
    sums: _Sums


def check_wal(path: Path) -> None:
    """Raise ValueError when the log at ``path`` was damaged; no log is a good log."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        log = _header(file)
        if log is not None and _commits_left_out(file, log) > COMMITS_CUT_SHORT_MAX:
            raise ValueError("commits in the middle of its log are not as they were written")


def _header(file: BinaryIO) -> _Log | None:
    """The head of the log; None when nothing was ever written to it."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not any(head):
        return None
    magic, _, page_size, _, *rest = _HEADER.unpack(head)
    order = _MAGIC.get(magic, "")
    if not order or (sums := _checksum(order, head[:24], (0, 0))) != (rest[2], rest[3]):
        raise ValueError("the head of its log is not as it was written")
    return _Log(order, page_size, (rest[0], rest[1]), sums)


def _commits_left_out(file: BinaryIO, log: _Log) -> int:
    """How many commits of this log lie behind the first frame that does not add up."""
    sums, good, left_out = log.sums, True, 0
    while len(frame := file.read(_FRAME.size + log.page_size)) == _FRAME.size + log.page_size:
        _, commit, *rest = _FRAME.unpack_from(frame)
        ours = (rest[0], rest[1]) == log.salts  # else it is of an earlier log in the same file
        if good:
            if ours:
                sums = _checksum(log.order, frame[_FRAME.size :], _checksum(log.order, frame[:8], sums))
            good = ours and sums == (rest[2], rest[3])
        if not good and ours and commit:
            left_out += 1
    return left_out


def _checksum(order: str, data: bytes, sums: _Sums) -> _Sums:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & _MASK
        two = (two + odd + one) & _MASK
    return one, two
