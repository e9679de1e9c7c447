"""Small records: as they were, all or none, and everybody hears."""

from __future__ import annotations

import asyncio

import pytest

from broker.storage.postgres.stores import Heard, a_store
from support.waits import eventually
from thingctl_broker.storage.postgres import documents as module


@pytest.fixture
async def documents(postgres_url):
    async with a_store(postgres_url) as store:
        yield store.documents


async def test_records_are_there_as_they_were_and_in_order(documents):
    values = [("thing", "b", b"{}"), ("type", "a", b"\0\xff"), ("thing", "B", b""), ("other", "x", b"1")]
    assert await documents.put(values)
    assert await documents.load(["type", "thing"]) == [values[1], values[2], values[0]]
    assert await documents.find("type", "a") == b"\0\xff"
    assert await documents.put(
        [("thing", "b", None), ("thing", "B", b"2"), ("thing", "c", b"3"), ("thing", "d", None)]
    )
    assert await documents.load(["thing"]) == [("thing", "B", b"2"), ("thing", "c", b"3")]
    assert await documents.find("thing", "b") is None
    assert await documents.find("thing", "\0") is None
    assert await documents.load([]) == []
    assert await documents.put([])


async def test_what_is_loaded_page_by_page_is_of_one_moment(documents, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 3)
    names = ["", "a", "B", "c", "é", "Z", "_", "a-1", "a1", "A", "ab"]
    assert await documents.put([(kind, name, b"1") for kind in ("type", "thing") for name in names])
    written = asyncio.ensure_future(
        documents.put([(kind, f"{name}+", b"2") for kind in ("type", "thing") for name in names])
    )
    loaded = await documents.load(["thing", "type"])
    assert await written
    assert len(loaded) in {22, 44}
    assert loaded == sorted(loaded)
    assert len(await documents.load(["thing", "type"])) == 44


async def test_what_is_looked_for_at_the_same_time_is_found_in_one_statement(documents):
    names = [f"t{n}" for n in range(60)]
    assert await documents.put([("thing", name, name.encode()) for name in names[::2]])
    await documents.find("thing", "t0")
    before = documents.finding.batches
    asked = [*names, "t0", "\0", "\udc80"]
    found = await asyncio.gather(*(documents.find("thing", name) for name in asked))
    assert found == [name.encode() if name in {*names[::2]} else None for name in asked]
    assert documents.finding.batches - before <= 2


async def test_the_last_of_the_same_counts(documents):
    assert await documents.put([("thing", "a", b"1"), ("thing", "a", b"2")])
    assert await documents.find("thing", "a") == b"2"


async def test_new_ones_are_all_new_or_not_written(documents):
    assert await documents.put([("thing", "a", b"1")], new=True)
    assert not await documents.put([("thing", "b", b"2"), ("thing", "a", b"2")], new=True)
    assert await documents.load(["thing"]) == [("thing", "a", b"1")]


async def test_of_many_that_make_the_same_one_does(documents, postgres_url):
    async with a_store(postgres_url) as other:
        done = await asyncio.gather(
            *(
                one.put([("thing", "a", b"%d" % i), ("thing", f"b{i}", b"")], new=True)
                for i in range(5)
                for one in (documents, other.documents)
            )
        )
    assert sum(done) == 1
    assert len(await documents.load(["thing"])) == 2


async def test_a_change_that_was_overtaken_is_not_made(documents):
    """Of two workers that change the tokens neither brings back what the other took away."""
    assert await documents.put([("tokens", "tokens", b"1")], instead_of=[None])
    assert await documents.put([("tokens", "tokens", b"2")], instead_of=[b"1"])
    assert not await documents.put([("tokens", "tokens", b"3")], instead_of=[b"1"])
    assert not await documents.put([("tokens", "tokens", b"3")], instead_of=[None])
    assert not await documents.put([("tokens", "tokens", b"3"), ("x", "y", b"")], instead_of=[b"2", b""])
    assert await documents.load(["tokens", "x"]) == [("tokens", "tokens", b"2")]
    done = await asyncio.gather(
        *(documents.put([("tokens", "tokens", b"n%d" % i)], instead_of=[b"2"]) for i in range(8))
    )
    assert sum(done) == 1
    assert await documents.put([("tokens", "tokens", None)], instead_of=[b"n%d" % done.index(True)])
    assert await documents.find("tokens", "tokens") is None


@pytest.mark.parametrize(
    ("kind", "name"), [("", "a"), ("a:b", "c"), ("a", "b\nc"), ("a", "b\0"), ("a", "x" * 1000)]
)
async def test_what_can_name_no_record(documents, kind, name):
    with pytest.raises(ValueError, match="can't name a record"):
        await documents.put([(kind, name, b"")])


async def test_two_that_write_the_same_in_another_order_do_not_stop_each_other(documents, postgres_url):
    names = [f"thing-{i}" for i in range(200)]
    async with a_store(postgres_url) as other:
        await asyncio.gather(
            *(
                one.put(
                    [("thing", name, b"%d" % i if i % 3 else None) for name in names[:: 1 if i % 2 else -1]]
                )
                for i in range(20)
                for one in (documents, other.documents)
            )
        )


async def test_every_worker_hears_of_each(postgres_url):
    heard = Heard()
    async with a_store(postgres_url, heard), a_store(postgres_url) as other:
        # More than one notification holds, with names that have colons in them.
        keys = [("thing", f"{i}:{'x' * 100}") for i in range(300)]
        await other.documents.put([(kind, name, b"") for kind, name in keys])
        await eventually(lambda: len(heard.documents) == 300)
        assert sorted(heard.documents) == sorted(keys)
        await other.documents.put([("thing", keys[0][1], None)])
        await eventually(lambda: heard.documents[300:] == [keys[0]])
        await other.documents.put([("thing", "new", b"")], new=True)
        assert not await other.documents.put([("thing", "new", b"")], new=True)
        await other.documents.put([("thing", "last", b"")])
        await eventually(lambda: ("thing", "last") in heard.documents)
        assert heard.documents[301:] == [("thing", "new"), ("thing", "last")]
