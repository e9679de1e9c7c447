"""Who is at work, who has died, and who takes over."""

import asyncio

from broker.storage.postgres.stores import frozen
from broker_support import AT


async def test_the_dead_are_adopted_by_one_at_a_time(postgres_url):
    async with frozen(postgres_url, AT) as db:
        workers = db.store.workers
        for name in ("a", "b", "c"):
            await workers.alive(name, 10.0)
        assert await workers.count() == 3
        assert await workers.orphan("a") is None
        await db.set(AT + 9)
        assert await workers.alive("a", 10.0) == AT + 9
        await db.set(AT + 10)
        assert await workers.count() == 1
        found = await asyncio.gather(*(workers.orphan("a") for _ in range(4)))
        assert sorted(map(str, found)) == ["None", "None", "b", "c"]
        await workers.gone("b")
        await db.set(AT + 39.5)  # the adopter has not come to its end with c either
        await workers.alive("a", 10.0)
        assert await workers.orphan("d") is None
        await db.set(AT + 40)
        assert [await workers.orphan("d"), await workers.orphan("d")] == ["c", None]
        await workers.alive("c", 5.0)  # it was only slow
        await db.set(AT + 100)
        assert await workers.orphan("c") == "a"


async def test_nobody_adopts_oneself(postgres_url):
    async with frozen(postgres_url, AT) as db:
        await db.store.workers.alive("a", 1.0)
        await db.set(AT + 5)
        assert await db.store.workers.orphan("a") is None
        assert await db.store.workers.orphan("b") == "a"
