"""The chain of seals that the audit files carry: read and verified.

A seal is the SHA-256 of the seal before and of every byte since. A chain begins with the first
file, or with a file whose first line is a record of the event ``audit.newChain``: the files before
it were removed or moved while the broker ran.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.security.audit_events import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIT_FILE: Final = "audit.log"

START: Final = "0" * 64
"""What the first seal of a chain follows."""

OLD_FILE: Final = re.compile(r"audit-(\d{6})\.log")
_SEAL: Final = re.compile(rb'\{"seal":"([0-9a-f]{64})"\}')
_BEGINS: Final = b'"event":"%b"' % Event.NEW_CHAIN.encode()


class Broken(NamedTuple):
    """Where a chain does not hold."""

    path: Path
    line: int
    fault: str


class Verified(NamedTuple):
    """Chains that hold. ``last_seal``: note it elsewhere, and a cut at the end shows, too.

    ``unsealed``: records behind the last seal, which nothing protects yet. ``begun_again``: where
    chains after the first begin, ``FILE: record``; what was before them may be missing.
    """

    records: int
    files: int
    last_seal: str
    unsealed: int
    begun_again: tuple[str, ...] = ()


def files(directory: Path) -> list[Path]:
    """The files of the chain, in its order."""
    old = sorted(path for path in directory.iterdir() if OLD_FILE.fullmatch(path.name))
    newest = directory / AUDIT_FILE
    return [*old, newest] if newest.exists() else old


def verify(paths: list[Path], noted: str = "") -> Verified | Broken:
    """Whether the chain over these files holds, and the seal ``noted`` (if any) is in it.

    Raises OSError when one cannot be read.
    """
    is_there = not noted
    number = 0
    seal = START
    records = unsealed = 0
    digest = hashlib.sha256(seal.encode())
    begun_again: list[str] = []
    for path in paths:
        number = 0
        for number, line in enumerate(_lines(path), 1):
            if number == 1 and _BEGINS in line:
                begun_again.append(f"{path.name}: {line.decode(errors='replace').strip()}")
                records += unsealed
                unsealed, digest = 0, hashlib.sha256(START.encode())
            found = _SEAL.fullmatch(line.rstrip(b"\n"))
            if found is None or not line.endswith(b"\n"):
                # Whatever it says: the next seal covers it, or nothing does yet. A line that
                # is no record broke off when a process or a disk failed.
                digest.update(line)
                unsealed += 1
                continue
            if digest.hexdigest().encode() != found[1]:
                return Broken(path, number, "something before this seal was changed, removed or inserted")
            seal = found[1].decode()
            is_there = is_there or seal == noted
            records += unsealed
            unsealed = 0
            digest = hashlib.sha256(seal.encode())
    if not is_there:
        return Broken(
            paths[-1] if paths else Path(AUDIT_FILE), number, "the end was cut off: the seal is not there"
        )
    return Verified(records + unsealed, len(paths), seal, unsealed, tuple(begun_again))


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def end_of_chain(paths: list[Path]) -> tuple[str, bytes]:
    """The last seal, and what has been written since."""
    seal, since = START, b""
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            if number == 1 and _BEGINS in line:
                seal, since = START, b""
            found = _SEAL.fullmatch(line.rstrip(b"\n")) if line.endswith(b"\n") else None
            if found is None:
                since += line
            else:
                seal, since = found[1].decode(), b""
    return seal, since
