"""Small records in PostgreSQL, as :class:`thingctl_broker.cluster.store_port.Documents`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from thingctl_broker.storage.postgres.batching import BatchQueue
from thingctl_broker.storage.postgres.transition_sql import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from thingctl_broker.storage.postgres.pool import Database

PAYLOAD: Final = "d"
"""What a notification of records begins with. ``kind:name`` follow, with ``SEPARATOR`` between."""

SEPARATOR: Final = "\n"

PAYLOAD_MAX: Final = 7900
"""Bytes of a notification; PostgreSQL takes less than 8,000."""

NAME_MAX: Final = 1000
"""Bytes of a kind and a name together."""

FIND_MAX: Final = 100
"""Records looked for in one statement: an announcement may have 64 KiB."""

PAGE: Final = 5000
"""Records read by one statement."""

_FIRST_PAGE: Final = (
    "SELECT d.name, d.value FROM thingctl.documents d WHERE d.kind = $1 AND d.name >= $2 "
    "ORDER BY d.name LIMIT $3"
)
_NEXT_PAGE: Final = _FIRST_PAGE.replace(">=", ">")
_FIND: Final = (
    "SELECT d.kind, d.name, d.value FROM unnest($1::text[], $2::text[]) AS i (kind, name) "
    "JOIN thingctl.documents d ON d.kind = i.kind AND d.name = i.name"
)
_PUT: Final = (
    "INSERT INTO thingctl.documents SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) "
    "AS i (kind, name, value) ORDER BY kind, name ON CONFLICT (kind, name) DO "
)
_REMOVE: Final = (
    "WITH found AS MATERIALIZED (SELECT d.kind, d.name FROM thingctl.documents d "
    "JOIN unnest($1::text[], $2::text[]) AS i (kind, name) ON d.kind = i.kind AND d.name = i.name "
    "ORDER BY d.kind, d.name FOR UPDATE OF d) "
    "DELETE FROM thingctl.documents d USING found f WHERE d.kind = f.kind AND d.name = f.name"
)
_LOCK: Final = (
    "SELECT d.kind, d.name, d.value FROM thingctl.documents d "
    "JOIN unnest($1::text[], $2::text[]) AS i (kind, name) ON d.kind = i.kind AND d.name = i.name "
    "ORDER BY d.kind, d.name FOR UPDATE OF d"
)
_TELL: Final = f"SELECT count(pg_notify('{CHANNEL}', payload)) FROM unnest($1::text[]) AS p (payload)"

_Record = tuple[str, str, bytes | None]


class _NotAsExpectedError(Exception):
    """A record was not what the caller took it for; nothing is written."""


class PostgresDocuments:
    """Records of all workers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.finding = BatchQueue(self._find, _no_keys, batch_max=FIND_MAX)
        """Gathers look-ups: every worker reads each record that another has written."""

    async def load(self, kinds: Collection[str]) -> list[tuple[str, str, bytes]]:
        """Every record of these kinds as of one moment, ordered by the kinds as given, then by name.

        In pages: no statement takes longer, however many there are.
        """

        async def work(connection: Any) -> list[tuple[str, str, bytes]]:
            found: list[tuple[str, str, bytes]] = []
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                for kind in dict.fromkeys(kinds):
                    records: list[tuple[str, str, bytes]] = []
                    statement, behind = _FIRST_PAGE, ""
                    # In the database's order of names, whichever that is: the index has it.
                    while rows := await connection.fetch(statement, kind, behind, PAGE):
                        records += [(kind, name, value) for name, value in rows]
                        statement, behind = _NEXT_PAGE, rows[-1][0]
                    found += sorted(records)
            return found

        return await self._database.run(work, repeatable=True)

    async def find(self, kind: str, name: str) -> bytes | None:
        """One record. Look-ups at the same time are one statement."""
        return await self.finding((kind, name)) if _is_text(name) else None

    async def put(
        self,
        records: Sequence[_Record],
        *,
        new: bool = False,
        instead_of: Sequence[bytes | None] | None = None,
    ) -> bool:
        """Write records (None: remove) in one transaction, and tell every worker.

        ``new``: only if none of them is there yet. ``instead_of``: only if each is at present
        what stands in its place there (None: not there). False: it was otherwise, and nothing
        was written. Raises ValueError for a name that no record can have.
        """
        for kind, name, _ in records:
            _check_name(kind, name)
        latest = {(kind, name): value for kind, name, value in records}  # the last one counts
        if new:
            instead_of = [None] * len(records)
        expected: dict[tuple[str, str], bytes | None] = {}
        if instead_of is not None:
            expected = {
                (kind, name): value for (kind, name, _), value in zip(records, instead_of, strict=True)
            }
        payloads = list(_payloads(latest))

        async def work(connection: Any) -> None:
            async with connection.transaction():
                if expected:
                    await _check(connection, expected)
                absent = [key for key, value in expected.items() if value is None]
                await _write(connection, latest, absent)
                await connection.execute(_TELL, payloads)

        if not latest:
            return True
        try:
            # What was expected may be so no more because this very call has changed it.
            await self._database.run(work, repeatable=not expected)
        except (_NotAsExpectedError, asyncpg.UniqueViolationError):
            return False
        return True

    async def _find(self, asked: list[tuple[str, str]]) -> list[bytes | Exception | None]:
        kinds, names = [kind for kind, _ in asked], [name for _, name in asked]

        async def work(connection: Any) -> dict[tuple[str, str], bytes]:
            rows = await connection.fetch(_FIND, kinds, names)
            return {(kind, name): value for kind, name, value in rows}

        found = await self._database.run(work, repeatable=True)
        return [found.get(key) for key in asked]


async def _check(connection: Any, expected: dict[tuple[str, str], bytes | None]) -> None:
    kinds, names = [kind for kind, _ in expected], [name for _, name in expected]
    found = {(kind, name): value for kind, name, value in await connection.fetch(_LOCK, kinds, names)}
    if any(found.get(key) != value for key, value in expected.items()):
        raise _NotAsExpectedError


async def _write(
    connection: Any, latest: dict[tuple[str, str], bytes | None], absent: list[tuple[str, str]]
) -> None:
    for keys, conflict in (
        (set(latest) - set(absent), "UPDATE SET value = excluded.value"),
        (absent, "NOTHING"),
    ):
        put = [(kind, name, value) for (kind, name) in keys if (value := latest[kind, name]) is not None]
        if put:
            kinds, names, values = map(list, zip(*put, strict=True))
            done = await connection.execute(_PUT + conflict, kinds, names, values)
            if int(done.split()[-1]) != len(put):
                raise _NotAsExpectedError  # somebody was first
    gone = [key for key, value in latest.items() if value is None]
    if gone:
        await connection.execute(_REMOVE, [kind for kind, _ in gone], [name for _, name in gone])


def _no_keys(_: object) -> tuple[()]:
    return ()


def _is_text(name: str) -> bool:
    """Whether PostgreSQL can be asked for it: a name it cannot take would spoil the others' answers."""
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False


def _check_name(kind: str, name: str) -> None:
    if not kind or ":" in kind or {"\n", "\0"} & set(kind + name) or len((kind + name).encode()) > NAME_MAX:
        raise ValueError(f"{ascii(kind)[:80]}, {ascii(name)[:80]} can't name a record")


def _payloads(keys: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Notifications of these records, as few as there can be."""
    payload, size = PAYLOAD, len(PAYLOAD)
    for kind, name in keys:
        entry = f"{kind}:{name}{SEPARATOR}"
        length = len(entry.encode())
        if size + length > PAYLOAD_MAX:
            yield payload
            payload, size = PAYLOAD, len(PAYLOAD)
        payload += entry
        size += length
    if size > len(PAYLOAD):
        yield payload
