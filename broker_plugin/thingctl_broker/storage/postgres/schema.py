r"""The tables, and what leads from each version of them to the next.

Everything is in a PostgreSQL schema of its own, ``thingctl``: the database may hold other
things too, and a schema of that name that is not ours is refused and left as it is.

**Executions** are partitioned by month on their id, which is a UUIDv7: its first 48 bits are
the millisecond of its making. So the id alone is the primary key, a look-up by id goes to one
partition, and what is old leaves as a whole table, not row by row. ``partitions`` makes them.

What is JSON is ``text``, never ``jsonb``: it comes back byte for byte; and a NUL character,
which JSON may hold and PostgreSQL may not, is there in its escaped form (``\u0000``), which is
plain text here but would be refused by ``jsonb``. An unescaped one is no JSON and never gets here.

Times are Unix seconds (double precision) by ``thingctl.now()``, the one clock of all workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from thingctl_broker.storage.postgres.partitions import make_partitions

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "thingctl"
"""The schema's, and the one of the channel that changes are told on."""

LOCK: Final = 0x7468_6374_6C00
"""The advisory lock of whoever changes tables ("thctl"): several workers may start at once."""

VERSION_MIN: Final = 14
"""Of PostgreSQL: earlier ones plan changes of partitioned tables row by row."""

_VERSION_1: Final = """
CREATE FUNCTION thingctl.now() RETURNS double precision
    LANGUAGE sql VOLATILE PARALLEL SAFE
    AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';

CREATE TABLE thingctl.executions (
    execution_id uuid PRIMARY KEY,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,                            -- JSON
    progress text,                          -- JSON
    late_status text,                       -- what the thing said after the end
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,                       -- JSON
    attempts integer NOT NULL DEFAULT 0,
    conflicts integer NOT NULL DEFAULT 0,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,                -- the next deadline; NULL: it has ended
    retry_at double precision,              -- it waits; may be published then or when its thing comes
    unhanded_since double precision,        -- published then, and the MQTT cluster has yet to take it
    tell_at double precision                -- its end has yet to be told to a webhook, from then on
) PARTITION BY RANGE (execution_id);

CREATE INDEX executions_thing ON thingctl.executions (thing, execution_id);
CREATE INDEX executions_command ON thingctl.executions (command_id, execution_id);
CREATE INDEX executions_due ON thingctl.executions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX executions_waiting ON thingctl.executions (thing, execution_id) WHERE retry_at IS NOT NULL;
CREATE INDEX executions_retry ON thingctl.executions (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX executions_unhanded ON thingctl.executions (unhanded_since)
    WHERE unhanded_since IS NOT NULL AND cancel_requested_at IS NULL;
CREATE INDEX executions_untold ON thingctl.executions (tell_at) WHERE tell_at IS NOT NULL;
-- Rows are written in about the order of these times: a summary of each few pages is enough.
CREATE INDEX executions_ended ON thingctl.executions
    USING brin (ended_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX executions_created ON thingctl.executions
    USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE thingctl.idempotency_keys (
    requested_by text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    execution_id uuid NOT NULL,
    PRIMARY KEY (requested_by, key)
);
CREATE INDEX idempotency_keys_execution ON thingctl.idempotency_keys (execution_id);

CREATE TABLE thingctl.rollouts (
    command_id text PRIMARY KEY,
    action text NOT NULL,
    params text NOT NULL,
    ttl integer,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    things text[] NOT NULL,                 -- large, and written once: progress does not touch it
    targeted integer NOT NULL,
    rules text NOT NULL,                    -- JSON
    post_back_uri text NOT NULL,
    state text NOT NULL,
    sent integer NOT NULL,
    refused integer NOT NULL,
    refusals text NOT NULL,                 -- JSON
    forgiven integer NOT NULL,
    moved_at double precision NOT NULL,
    lease_worker text,
    lease_until double precision
) WITH (fillfactor = 70);
CREATE INDEX rollouts_state ON thingctl.rollouts (state);

CREATE TABLE thingctl.documents (
    kind text NOT NULL,
    name text NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE thingctl.workers (
    client_id text PRIMARY KEY,
    lives_until double precision NOT NULL,
    adopter text,
    adopted_until double precision
);
"""

_VERSION_2: Final = """
ALTER TABLE thingctl.rollouts ADD COLUMN idempotency_key text NOT NULL DEFAULT '';
ALTER TABLE thingctl.rollouts ADD COLUMN fingerprint text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX rollouts_key ON thingctl.rollouts (requested_by, idempotency_key)
    WHERE idempotency_key <> '';
"""

MIGRATIONS: Sequence[str] = (_VERSION_1, _VERSION_2)
"""What leads from each version of the tables to the next."""


class SchemaError(Exception):
    """The database cannot be used, and was left as it is. ``text`` is one sentence for people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


async def migrate(connection: Any) -> int:
    """Bring the tables to this version; return from which version they came.

    Several workers may do this at once. Raises :class:`SchemaError`, having changed nothing.
    """
    await _check_server(connection)
    version = await _version(connection)
    if version < len(MIGRATIONS):
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            version = await _version(connection)  # another worker may have been first
            if version < len(MIGRATIONS):
                await _bring_up(connection, version)
    await make_partitions(connection)
    return version


async def _bring_up(connection: Any, version: int) -> None:
    try:
        if not version:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS thingctl")
            await connection.execute(
                "CREATE TABLE thingctl.about (product text PRIMARY KEY, version integer NOT NULL)"
            )
            await connection.execute("INSERT INTO thingctl.about VALUES ('thingctl', 0)")
        for migration in MIGRATIONS[version:]:
            await connection.execute(migration)
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"the store's user may not make the tables: {error}. Let it CREATE in the database, "
            "or make an empty schema thingctl that belongs to it"
        ) from None
    await connection.execute("UPDATE thingctl.about SET version = $1", len(MIGRATIONS))


async def _check_server(connection: Any) -> None:
    found = connection.get_server_version()
    if found.major < VERSION_MIN:
        raise SchemaError(f"the store is PostgreSQL {found.major}; {VERSION_MIN} or newer is needed")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise SchemaError(f"the store's database is encoded in {encoding}; it must be UTF8")


async def _version(connection: Any) -> int:
    """Of the tables that are there, 0: there are none."""
    relations = await connection.fetchval(
        "SELECT array_agg(c.relname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'thingctl'"
    )
    if not relations:
        return 0
    version = None
    if "about" in relations:
        try:
            version = await connection.fetchval(
                "SELECT version FROM thingctl.about WHERE product = 'thingctl'"
            )
        except asyncpg.UndefinedColumnError:
            version = None
        except asyncpg.InsufficientPrivilegeError as error:
            raise SchemaError(f"the store's user may not read its tables: {error}") from None
    if not isinstance(version, int):
        raise SchemaError(
            "the database has a schema named thingctl that is not of thingctl; it was left as it is"
        )
    if version > len(MIGRATIONS):
        raise SchemaError(
            f"the database was written by a newer thingctl (schema {version}; this one knows "
            f"{len(MIGRATIONS)}); it was left as it is"
        )
    return version
