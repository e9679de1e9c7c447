"""Rollouts in PostgreSQL, as :class:`thingctl_broker.cluster.store_port.RolloutRows`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_broker.commands.status_table import FAILURES
from thingctl_broker.rollouts.rollout import MOVES, Listed, RolloutRecord, RolloutRules, State
from thingctl_broker.storage.postgres.transition_sql import CHANNEL, listed, quoted
from thingctl_protocol.limits import TTL_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingctl_broker.storage.postgres.pool import Database

PAYLOAD: Final = "r"
"""What a notification of a rollout begins with; its command's id follows."""

_COLUMNS: Final = (
    "r.command_id, r.action, r.params, r.ttl, r.created_at, r.requested_by, r.things, r.targeted, r.rules, "
    "r.post_back_uri, r.state, r.sent, r.refused, r.refusals, r.forgiven, "
    "r.idempotency_key, r.fingerprint"
)
_PLAIN: Final = _COLUMNS.replace("r.", "")

_rules: Final = msgspec.json.Decoder(RolloutRules)
_refusals: Final = msgspec.json.Decoder(dict[str, str])


def _moves(among: Iterable[State]) -> str:
    """The moves of ``MOVES`` into ``among``, as what follows ``(from, to) IN``."""
    wanted = frozenset(among)
    pairs = [(a, b) for a in State for b in State if b in MOVES[a] and b in wanted]
    return "(" + ", ".join(f"({quoted(a)}, {quoted(b)})" for a, b in pairs) + ")"


_TOLD: Final = f"(SELECT count(pg_notify('{CHANNEL}', '{PAYLOAD}' || changed.command_id)) FROM changed)"

_ADD: Final = f"""
WITH changed AS (
    INSERT INTO thingctl.rollouts ({_PLAIN}, moved_at) VALUES (
        $1, $2, $3, $4, $5, $6, $7::text[], $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, thingctl.now()
    ) ON CONFLICT DO NOTHING RETURNING command_id
)
SELECT {_TOLD}
"""

_WITH_KEY: Final = f"""
SELECT {_COLUMNS} FROM thingctl.rollouts r
WHERE requested_by = $1 AND idempotency_key = $2 AND idempotency_key <> ''
"""

_MOVE: Final = f"""
WITH locked AS MATERIALIZED (
    SELECT command_id, state FROM thingctl.rollouts WHERE command_id = $1 FOR UPDATE
),
changed AS (
    UPDATE thingctl.rollouts r SET state = $2::text, moved_at = thingctl.now(),
        forgiven = CASE WHEN $2::text = '{State.RUNNING}' THEN (
            SELECT count(*) FROM thingctl.executions e
            WHERE e.command_id = r.command_id AND e.status IN {listed(FAILURES)}
        ) ELSE r.forgiven END
    FROM locked l WHERE r.command_id = l.command_id AND (l.state, $2::text) IN {_moves(State)}
    RETURNING {_COLUMNS}
)
SELECT changed.*, {_TOLD} FROM changed
UNION ALL
SELECT {_COLUMNS}, 0 FROM thingctl.rollouts r
WHERE command_id = $1 AND NOT EXISTS (SELECT FROM changed)
"""

_HAS_WORK: Final = f"""(r.state = '{State.RUNNING}' OR (
    r.state = '{State.CANCELED}' AND r.moved_at > clock.now - coalesce(r.ttl, {TTL_MAX}) AND EXISTS (
        SELECT FROM thingctl.executions e WHERE e.command_id = r.command_id
            AND e.due_at IS NOT NULL AND e.cancel_requested_at IS NULL)))"""

_PROLONG: Final = """
UPDATE thingctl.rollouts SET lease_until = thingctl.now() + $2::double precision
WHERE lease_worker = $1 AND lease_until > thingctl.now() AND state <> ALL($3::text[])
"""

_LEASE: Final = f"""
WITH clock AS MATERIALIZED (SELECT thingctl.now() AS now),
free AS MATERIALIZED (
    SELECT r.command_id FROM thingctl.rollouts r, clock
    WHERE r.state IN ('{State.RUNNING}', '{State.CANCELED}')
        AND (r.lease_until IS NULL OR r.lease_until <= clock.now) AND {_HAS_WORK}
    ORDER BY r.command_id LIMIT $3::bigint FOR UPDATE OF r SKIP LOCKED
)
UPDATE thingctl.rollouts r SET lease_worker = $1, lease_until = clock.now + $2::double precision
FROM free, clock WHERE r.command_id = free.command_id
RETURNING {_COLUMNS}
"""

_WORKERS_MOVES: Final = (State.STOPPED, State.FINISHED)
"""What driving a rollout may make of it; all other moves are an operator's."""

_SAVE: Final = f"""
WITH locked AS MATERIALIZED (
    SELECT command_id, state,
        CASE WHEN (state, $3::text) IN {_moves(_WORKERS_MOVES)} THEN $3::text ELSE state END AS becomes
    FROM thingctl.rollouts
    WHERE command_id = $2 AND lease_worker = $1 AND lease_until > thingctl.now() FOR UPDATE
),
changed AS (
    UPDATE thingctl.rollouts r SET state = l.becomes, sent = $4, refused = $5, refusals = $6,
        forgiven = greatest(r.forgiven, $7),
        moved_at = CASE WHEN l.becomes = l.state THEN r.moved_at ELSE thingctl.now() END
    FROM locked l WHERE r.command_id = l.command_id
    RETURNING r.command_id, r.state, l.becomes <> l.state AS moved
)
SELECT state, (SELECT count(pg_notify('{CHANNEL}', '{PAYLOAD}' || c.command_id)) FROM changed c WHERE moved)
FROM changed
"""
_NEWEST: Final = f"""
SELECT {_COLUMNS.replace("r.things", "'{}'::text[]")}, cardinality(r.things) - r.sent FROM thingctl.rollouts r
WHERE ($1::text IS NULL OR r.command_id < $1) AND ($2::text[] IS NULL OR r.state = ANY($2))
    AND ($3::text IS NULL OR r.requested_by = $3)
ORDER BY r.command_id DESC LIMIT $4::bigint
"""
_SAVE_THINGS: Final = "UPDATE thingctl.rollouts SET things = $2::text[] WHERE command_id = $1"


class PostgresRollouts:
    """Rollouts of all workers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._things: dict[str, list[str]] = {}

    async def add(self, record: RolloutRecord) -> None:
        """Keep a new one, with its things."""
        await self._fetch(_ADD, *_values(record), repeatable=True)

    async def get(self, command_id: str) -> RolloutRecord | None:
        """As it stands now, whole."""
        rows = await self._fetch(
            f"SELECT {_COLUMNS} FROM thingctl.rollouts r WHERE command_id = $1",
            command_id,
            repeatable=True,
        )
        return _record(rows[0]) if rows else None

    async def with_key(self, requested_by: str, key: str) -> RolloutRecord | None:
        """The one that this caller has begun with the key, whole."""
        rows = await self._fetch(_WITH_KEY, requested_by, key, repeatable=True)
        return _record(rows[0]) if rows else None

    async def newest(
        self, limit: int, cursor: str | None, states: frozenset[State] | None, requested_by: str | None
    ) -> list[Listed]:
        """At most ``limit``, newest first, behind the one whose id is ``cursor``."""
        among = None if states is None else [state.value for state in states]
        rows = await self._fetch(_NEWEST, cursor, among, requested_by, limit, repeatable=True)
        return [Listed(_record(row), row[17]) for row in rows]

    async def move(self, command_id: str, to: State) -> RolloutRecord | None:
        """Set the state if ``MOVES`` allows it; return the rollout as it stands now.

        Resumed, its failures so far are forgiven.
        """
        rows = await self._fetch(_MOVE, command_id, to.value, repeatable=True)
        return _record(rows[0]) if rows else None

    async def lease(self, worker: str, seconds: float, limit: int) -> list[RolloutRecord]:
        """Take on rollouts that have something to do and that no living worker has.

        What the worker holds stays its own, paused or not, until it is finished or the worker
        does not come back in time.
        """
        await self._fetch(_PROLONG, worker, seconds, [State.FINISHED.value, State.CANCELED.value])
        records = [_record(row) for row in await self._fetch(_LEASE, worker, seconds, limit)]
        self._things |= {record.command_id: list(record.things) for record in records}
        return records

    async def save(self, worker: str, record: RolloutRecord) -> State | None:
        """Keep how far it has come; return its state as it stands now, None: the lease was lost.

        Of the record's state only that it has STOPPED or FINISHED counts. Its things are
        written again when they are others than were leased: some were put back, or all are done.
        """
        values = (
            worker,
            record.command_id,
            record.state.value,
            record.sent,
            record.refused,
            msgspec.json.encode(record.refusals).decode(),
            record.forgiven,
        )
        things = record.things if self._things.get(record.command_id) != record.things else None

        async def work(connection: Any) -> State | None:
            async with connection.transaction():
                state = await connection.fetchval(_SAVE, *values)
                if state is not None and things is not None:
                    await connection.execute(_SAVE_THINGS, record.command_id, things)
            return None if state is None else State(state)

        state = await self._database.run(work, repeatable=True)
        if state is None:
            self._things.pop(record.command_id, None)
        elif things is not None:
            self._things[record.command_id] = list(things)
        return state

    async def _fetch(self, statement: str, *arguments: object, repeatable: bool = False) -> list[Any]:
        async def work(connection: Any) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows

        return await self._database.run(work, repeatable=repeatable)


def _values(record: RolloutRecord) -> tuple[object, ...]:
    return (
        record.command_id,
        record.action,
        record.params,
        record.ttl,
        record.created_at,
        record.requested_by,
        record.things,
        record.targeted,
        msgspec.json.encode(record.rules).decode(),
        record.post_back_uri,
        record.state.value,
        record.sent,
        record.refused,
        msgspec.json.encode(record.refusals).decode(),
        record.forgiven,
        record.idempotency_key,
        record.fingerprint,
    )


def _record(row: Any) -> RolloutRecord:
    return RolloutRecord(
        command_id=row[0],
        action=row[1],
        params=row[2],
        ttl=row[3],
        created_at=row[4],
        requested_by=row[5],
        things=row[6],
        targeted=row[7],
        rules=_rules.decode(row[8]),
        post_back_uri=row[9],
        state=State(row[10]),
        sent=row[11],
        refused=row[12],
        refusals=_refusals.decode(row[13]),
        forgiven=row[14],
        idempotency_key=row[15],
        fingerprint=row[16],
    )
