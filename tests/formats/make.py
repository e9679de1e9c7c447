"""Makes ``executions.sql``, ``postgres.sql`` and ``executions.json``: executions as the stores of this version keep them.

They were made once, and stay: a later version must read what an earlier one wrote. Make new ones beside them
when a format gets a new version.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from broker.storage.postgres.stores import a_store
from support.postgres import PostgresServer
from thingctl_broker.commands.execution import Execution
from thingctl_broker.storage.postgres.importing import import_executions
from thingctl_broker.storage.sqlite.journal import SqliteJournal
from thingctl_protocol.identifiers import IdSource
from thingctl_protocol.messages import StatusReason, decode_response

HERE = Path(__file__).parent
NOT_STORED = ("deadline", "cancel_deadline", "kept", "cancel_wanted_at")
AT = 1_790_000_000.25


def say(status, **fields):
    return decode_response(msgspec.json.encode({"status": status, **fields}))


def executions(now: float) -> list[Execution]:
    """One of each status, and of each field at least one that has a value."""
    ids = IdSource()

    def make(age, ttl=3600, **fields):
        created_at = AT - age
        execution_id = ids.make(int(created_at * 1000), 7)
        return Execution(
            execution_id,
            f"of-{age}",
            "lamp",
            "set",
            b'{"n": "\\u0000\xc3\xa9" }',
            ttl,
            created_at,
            now - age + ttl,
            **fields,
        )

    ended = make(
        900, requested_by="ops", idempotency_key="k1", fingerprint="f1", post_back_uri="https://example.com/a"
    )
    ended.published(ended.created_at + 1)
    ended.delivered(ended.created_at + 1.5)
    ended.respond(say("SUCCEEDED", result={"a": [1, 2]}), ended.created_at + 2)
    ended.respond(say("FAILED"), ended.created_at + 3)
    failed = make(800)
    failed.published(failed.created_at)
    failed.respond(
        say("FAILED", statusReason={"reasonCode": "E", "reasonDescription": "x\0y"}), failed.created_at + 9
    )
    rejected = make(700)
    rejected.refuse(StatusReason("REFUSED_BY_DEVICE"), rejected.created_at + 1)
    late = make(600, 60, untold=True, post_back_uri="https://example.com/b")
    late.published(late.created_at)
    late.delivered(late.created_at + 1)
    late.expire(now, late.created_at + 60)
    late.respond(say("FAILED", result=None, statusReason={"reasonCode": "L"}), late.created_at + 90)
    canceled = make(500)
    canceled.cancel(now, canceled.created_at + 5, 10.0)
    working = make(50, requested_by="ops", idempotency_key="k2", fingerprint="f2")
    working.published(AT - 40)
    working.published(AT - 30)
    working.respond(
        say("IN_PROGRESS", progress={"percent": 5.0, "message": "on"}, statusReason={"reasonCode": "W"}),
        AT - 20,
    )
    stopping = make(45)
    stopping.published(AT - 44)
    stopping.cancel(now, AT - 43, 600.0)
    return [ended, failed, rejected, late, canceled, working, stopping, make(10)]


def plain(execution: Execution) -> dict:
    """What every store keeps of it."""
    fields = msgspec.to_builtins(execution, builtin_types=(bytes,))
    for name in NOT_STORED:
        del fields[name]
    return json.loads(json.dumps(fields, default=bytes.decode))


async def main() -> None:
    made = executions(1000.0)
    (HERE / "executions.json").write_text(json.dumps([plain(one) for one in made], indent=1) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder))
        await journal.start()
        for execution in made:
            journal.record(execution)
        await journal.stop()
        with closing(sqlite3.connect(Path(folder, "executions.db"))) as connection:
            pragmas = [
                f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
                for name in ("application_id", "user_version")
            ]
            (HERE / "executions.sql").write_text("\n".join([*connection.iterdump(), *pragmas]) + "\n")
    server = PostgresServer()
    try:
        server.psql("CREATE DATABASE formats")
        async with a_store(server.url("formats")) as store:
            await import_executions(store._database, made)
        (HERE / "postgres.sql").write_text(server.dump("formats"))
    finally:
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
