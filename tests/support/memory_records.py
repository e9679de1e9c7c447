"""A store of the engine's records in memory."""

from __future__ import annotations


class MemoryRecords:
    """A store in memory. ``then`` waits for ``commit``, as a disk would, when ``holds``."""

    def __init__(self, *, holds: bool = False) -> None:
        self.records: dict[tuple[int, bytes], bytes] = {}
        self.kept: dict[tuple[int, bytes], bytes] = {}
        self.holds = holds
        self.waiting = []

    def add(self, kind, key, value):
        assert (kind, key) not in self.records, "a new record has a new key"
        self.records[kind, key] = value

    def put(self, kind, key, value):
        self.records[kind, key] = value

    def delete(self, kind, key):
        self.records.pop((kind, key), None)

    def then(self, kept):
        if self.holds:
            self.waiting.append(kept)
        else:
            kept()

    def commit(self):
        self.kept = dict(self.records)
        waiting, self.waiting = self.waiting, []
        for kept in waiting:
            kept()

    def load(self, kind):
        return iter(sorted((key, value) for (k, key), value in self.records.items() if k == kind))
