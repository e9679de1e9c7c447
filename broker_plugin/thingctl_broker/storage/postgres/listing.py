"""Lists of executions: page by page, within bounds, whatever is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from thingctl_broker.commands.table import SCAN_MAX, PageOfExecutions
from thingctl_broker.storage.postgres.execution_rows import columns, is_execution_id, reader
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.table import Query
    from thingctl_broker.storage.postgres.pool import Database

CHUNK_MAX: Final = 1000
"""Rows that are fetched at once where only we can tell which are asked for."""


class _Where:
    """Conditions and their values."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self.texts: list[str] = []

    def add(self, text: str, value: object) -> None:
        self.values.append(value)
        self.texts.append(text.format(f"${len(self.values)}"))

    def __str__(self) -> str:
        return " AND ".join(self.texts) or "true"


async def select(database: Database, query: Query, limit: int, cursor: str | None) -> PageOfExecutions:
    """List executions behind ``cursor``: :meth:`thingctl_broker.commands.table.ExecutionTable.select`.

    Indexes lead to the thing, the command and the cursor. Of what lies there at most ``SCAN_MAX``
    rows are looked at for the rest of what is asked.
    """
    if cursor is not None and not is_execution_id(cursor):
        return PageOfExecutions([], None)  # nothing was ever behind it
    found: list[Execution] = []
    scanned = 0
    ours = query.visible is not None or query.things is not None
    while True:
        size = limit - len(found) + 1
        if ours:
            size = min(CHUNK_MAX, max(4 * size, 100))
        window = SCAN_MAX - scanned
        rows, last = await database.run(
            lambda connection, at=cursor, window=window, size=size: _chunk(  # type: ignore[misc]
                connection, query, at, window, size
            ),
            repeatable=True,
        )
        read = reader()
        for row in rows:
            if len(found) == limit:
                return PageOfExecutions(found, cursor)
            cursor = str(row[1])
            execution = read(row, 0)
            if query.admits(execution):
                found.append(execution)
        if len(rows) < size:
            # All of the window was looked at. ``last``: what it ends with, if more lies behind.
            return PageOfExecutions(found, last)
        scanned += len(rows)
        if scanned >= SCAN_MAX:
            return PageOfExecutions(found, cursor)


async def _chunk(
    connection: Any, query: Query, cursor: str | None, window: int, size: int
) -> tuple[list[Any], str | None]:
    led, rest = _Where(), _Where()
    if query.thing is not None:
        led.add("e.thing = {}::text", query.thing)
    elif query.command_id is not None:
        led.add("e.command_id = {}::text", query.command_id)
    if cursor is not None:
        sign = ">" if query.oldest_first else "<"
        led.add(f"e.execution_id {sign} {{}}::uuid", cursor)
    rest.values = led.values  # they are numbered on
    order = f"ORDER BY execution_id {'ASC' if query.oldest_first else 'DESC'}"
    source = f"FROM thingctl.executions e WHERE {led}"
    values = list(led.values)
    if query.command_id is not None and query.thing is not None:
        rest.add("s.command_id = {}::text", query.command_id)
    if query.statuses is not None:
        rest.add(
            "s.status = ANY({}::text[])", [status.value for status in Status if status in query.statuses]
        )
    for condition, value in (
        ("s.action = {}::text", query.action),
        ("s.created_at >= {}::double precision", query.since),
        ("s.created_at < {}::double precision", query.until),
    ):
        if value is not None:
            rest.add(condition, value)
    if query.reason_code is not None:
        rest.texts.append("s.reason IS NOT NULL")  # which one it is: Query.admits decides
    rows = await connection.fetch(
        f"SELECT thingctl.now(), {columns('s')} FROM ("
        f"SELECT * {source} {order} LIMIT {int(window)}) s WHERE {rest} {order} LIMIT {int(size)}",
        *rest.values,
    )
    if len(rows) >= size:
        return rows, None
    beyond = await connection.fetch(
        f"SELECT e.execution_id {source} {order} LIMIT 2 OFFSET {int(window) - 1}",
        *values,
    )
    return rows, str(beyond[0][0]) if len(beyond) == 2 else None
