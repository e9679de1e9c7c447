"""A worker with many things: what it holds of each in memory, and how long it takes to start."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import clusters
from processes import rss_bytes
from thingctl_broker.cluster.registry_replica import BATCH_MAX
from thingctl_broker.storage.postgres.settings import StoreSettings
from thingctl_broker.storage.postgres.store import PostgresStore
from thingctl_broker.things.records import Stored
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.thing import Definition
from thingctl_protocol.messages import ActionDescription, Announcement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AT: Final = 1_700_000_000.0
PASSWORD: Final = "$argon2id$v=19$m=65536,t=3,p=4$" + "c" * 22 + "$" + "h" * 43
"""As long as one is."""


class _Deaf:
    """Hears of changes, and does nothing with it."""

    def changed(self, execution_ids: Sequence[str], ended: Sequence[str]) -> None: ...
    def document_changed(self, kind: str, name: str) -> None: ...
    def rollout_changed(self, command_id: str) -> None: ...
    def missed(self) -> None: ...


def mirror_rows(on: clusters.Place, things: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """None, so many bare ones, with an announcement that all share, and with one of their own."""
    token = secrets.token_urlsafe(24)
    rows: list[dict[str, Any]] = []
    for title, count, announces in (
        ("no things", 0, None),
        ("with password, tags and presence", things, None),
        ("and an announcement that all share", things, "shared"),
        ("and an announcement of its own each", things // 5, "own"),
    ):
        database = clusters.database(on.server)
        with clusters.worker(on, database, "maker", token):
            pass  # makes the tables
        fill(on.server.url(database), [f"kiosk-{i:07}" for i in range(count)], announces)
        with clusters.worker(on, database, "w1", token) as worker:
            held = rss_bytes([worker.pid])
        none = rows[0]["rss_bytes"] if rows else held
        rows.append(
            {
                "title": title,
                "things": count,
                "rss_bytes": held,
                "bytes_per_thing": round((held - none) / count) if count else 0,
                "start_seconds": round(worker.seconds, 2),
                "start_cpu_seconds": round(worker.cpu, 2),
            }
        )
        say(f"{title}: {rows[-1]}")
    return rows


def fill(url: str, names: Sequence[str], announces: str | None = None) -> None:
    """Write the records of these things, as a worker would. ``announces``: None, "shared" or "own"."""
    asyncio.run(_fill(url, names, announces))


async def _fill(url: str, names: Sequence[str], announces: str | None) -> None:
    registry = ThingRegistry(changed=lambda *_: None)
    store = PostgresStore(StoreSettings(url=url))
    await store.start(_Deaf())
    try:
        for first in range(0, len(names), BATCH_MAX // 3):
            records: list[tuple[str, str, bytes | None]] = []
            for name in names[first : first + BATCH_MAX // 3]:
                registry.define(name, Definition(tags=("lobby", "floor=3")), AT)
                registry.set_password_hash(name, PASSWORD)
                registry.connected(name, name, AT)
                if announces is not None:
                    said = announcement(name if announces == "own" else "")
                    registry.announced(name, said, AT)
                records += [
                    (kept, name, record)
                    for kept in (Stored.THING, Stored.PRESENCE, Stored.ANNOUNCEMENT)
                    if (record := registry.record(kept, name)) is not None
                ]
                registry.remove(name)
            await store.documents.put(records)
    finally:
        await store.stop()


def announcement(of: str) -> Announcement:
    """What an agent with six actions says, about 1.2 KB."""
    schema = {
        "type": "object",
        "properties": {"value": {"type": "number", "minimum": 5, "maximum": 30}},
        "required": ["value"],
        "additionalProperties": False,
    }
    return Announcement(
        "0.1.0",
        tuple(
            ActionDescription(f"action{i}", description=f"What action {i} does {of}", params_schema=schema)
            for i in range(6)
        ),
    )
