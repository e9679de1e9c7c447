"""The port behind which what must survive the process is kept. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class RecordKind(IntEnum):
    """What a record is. The numbers are in the file."""

    SESSION = 1
    MESSAGE = 2
    DELIVERY = 3
    RECEIVED = 4
    RETAINED = 5


class RecordStore(Protocol):
    """Keeps records by kind and key."""

    @property
    def accepting(self) -> bool:
        """Whether the last commit succeeded."""
        ...

    @property
    def commits(self) -> int:
        """Batches committed since the start."""
        ...

    def add(self, kind: int, key: bytes, value: bytes) -> None:
        """Keep a record under a key that none has."""
        ...

    def put(self, kind: int, key: bytes, value: bytes) -> None:
        """Keep a record, or replace it."""
        ...

    def delete(self, kind: int, key: bytes) -> None:
        """Keep a record no longer."""
        ...

    def then(self, kept: Callable[[], None]) -> None:
        """Call ``kept`` when everything so far is on the disk; during this call if it is."""
        ...

    def load(self, kind: int) -> Iterator[tuple[bytes, bytes]]:
        """All records of a kind with their keys, in the order of the keys."""
        ...


class NullRecords:
    """Keeps nothing (``mqtt.persistence = "off"``)."""

    accepting: Final = True
    commits: Final = 0

    def add(self, kind: int, key: bytes, value: bytes) -> None:
        """Do nothing."""

    def put(self, kind: int, key: bytes, value: bytes) -> None:
        """Do nothing."""

    def delete(self, kind: int, key: bytes) -> None:
        """Do nothing."""

    def then(self, kept: Callable[[], None]) -> None:
        """Call back during this call."""
        kept()

    def load(self, kind: int) -> Iterator[tuple[bytes, bytes]]:  # noqa: ARG002 there are none of any
        """Return nothing."""
        return iter(())
