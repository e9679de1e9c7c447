"""Bytes as a socket may bring them: damaged, and cut anywhere; and a transport that keeps the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import strategies as st


def damaged(draw: st.DrawFn, data: bytes, times: Sequence[int], within: int | None = None) -> bytes:
    """Change, take away or add a byte, as many times as one of ``times``; ``within``: the first bytes."""
    changed = bytearray(data)
    for _ in range(draw(st.sampled_from(times))):
        last = len(changed) - 1
        place = draw(st.integers(0, last if within is None else min(within, last)))
        match draw(st.integers(0, 2)):
            case 0:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case 1 if len(changed) > 1:
                del changed[place]
            case _:
                changed.insert(place, draw(st.integers(0, 255)))
    return bytes(changed)


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """Cut the data at the places, which are counted round and round."""
    for start, stop in pairwise(sorted({0, len(data), *(place % (len(data) + 1) for place in places)})):
        yield data[start:stop]


class KeptTransport(asyncio.Transport):
    """Keeps what is written, and how it ended."""

    def __init__(self, **extra: object) -> None:
        super().__init__({"peername": ("127.0.0.1", 1024), **extra})
        self.written = b""
        self.waiting = 0
        self.end = ""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.end += "closed "

    def abort(self) -> None:
        self.end += "aborted "

    def is_closing(self) -> bool:
        return bool(self.end)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.waiting
