"""Which executions have changed, in the order of their latest change, each of them once.

Pure. A reader is nothing but a position: what it has not seen is read from the one ring
that all readers share, so a slow reader costs no memory, and what has changed twice
meanwhile it sees once, as it stands. A reader that has fallen behind the ring is told so.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final, NamedTuple

CAPACITY: Final = 10_000
"""Executions whose latest change is remembered."""


class Changed(NamedTuple):
    """An execution has changed; reading goes on behind ``position``."""

    position: int
    execution_id: str


class ChangeFeed:
    """The ring."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.position = 0
        """Where a reader stands that has seen everything."""
        self._ring: OrderedDict[str, int] = OrderedDict()
        self._lost = 0
        """The position of the latest change that is no longer in the ring."""

    def __len__(self) -> int:
        return len(self._ring)

    def note(self, execution_id: str) -> None:
        """The execution has changed."""
        ring = self._ring
        self.position += 1
        ring[execution_id] = self.position
        ring.move_to_end(execution_id)
        if len(ring) > self.capacity:
            _, self._lost = ring.popitem(last=False)

    def since(self, position: int, limit: int) -> list[Changed] | None:
        """The next changes behind ``position``, oldest first, at most ``limit``; None: some are lost."""
        if position < self._lost:
            return None
        if position >= self.position:
            return []
        unseen: list[Changed] = []
        for execution_id, changed_at in reversed(self._ring.items()):
            if changed_at <= position:
                break
            unseen.append(Changed(changed_at, execution_id))
        return list(islice(reversed(unseen), limit))

    def forget(self) -> None:
        """Changes will go unnoted for a while: nobody can resume from before."""
        self._ring.clear()
        self.position += 1
        self._lost = self.position

    def resume(self, position: int) -> int | None:
        """Return the position of a reader that comes back; None: what came behind it is lost."""
        return position if self._lost <= position <= self.position else None
