"""API tokens that several workers share."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.fleet import Slow, settled
from thingctl_broker.cluster import token_replica as module
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.cluster.token_replica import KIND, SharedTokens
from thingctl_broker.security.tokens import (
    ADMIN,
    CredentialsError,
    Scope,
    Token,
    TokenExists,
    UnknownToken,
)
from thingctl_broker.testing.cluster_records import InMemoryDocuments

GIVEN = "given-from-outside-0123456789"


def reader(name="reader"):
    return Token(name, frozenset({Scope.COMMANDS_READ}))


class Listening:
    """A worker's ear: it looks again when tokens have changed."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.tasks = []

    def document_changed(self, kind, name):
        self.tasks.append(asyncio.create_task(self.tokens.look_again(at_once=True)))


@pytest.fixture
def documents():
    return InMemoryDocuments()


async def worker(documents, *, hears=True, **options):
    tokens = SharedTokens(documents, **options)
    await tokens.load()
    if hears:
        documents.listening.append(Listening(tokens))
    return tokens


@pytest.fixture
async def one(documents):
    return await worker(documents)


@pytest.fixture
async def two(one, documents):
    return await worker(documents)


async def test_the_first_worker_of_several_that_start_together_makes_the_admin_token(documents):
    both = [SharedTokens(documents) for _ in range(5)]
    await asyncio.gather(*(tokens.load() for tokens in both))
    made = [tokens.new_admin_token for tokens in both if tokens.new_admin_token is not None]
    assert len(made) == 1
    assert all(tokens.verify(made[0]).name == ADMIN for tokens in both)
    later = await worker(documents)
    assert (later.new_admin_token, later.verify(made[0]).name) == (None, ADMIN)


async def test_a_token_is_valid_at_every_worker_and_revoked_at_every_worker(one, two):
    plain = await one.add(reader())
    await settled()
    token = two.verify(plain)
    assert token.name == "reader"
    assert two.stands(token)
    await two.add(reader("another"))
    await settled()
    assert two.stands(token), "the same object: a stream goes on"
    await one.revoke("reader")
    await settled()
    assert two.verify(plain) is None
    assert not two.stands(token)


async def test_renewed_at_one_the_old_secret_ends_at_all(one, two):
    old = await one.add(reader())
    await settled()
    new = await two.renew("reader")
    await settled()
    assert (one.verify(old), one.verify(new).name) == (None, "reader")


async def test_a_listener_is_called_for_changes_of_other_workers(one, two):
    heard = []
    two.listen(lambda: heard.append(len(list(two))))
    await one.add(reader())
    await settled()
    assert heard[-1] == 2
    await one.revoke("reader")
    await settled()
    assert heard[-1] == 1


async def test_who_has_not_heard_of_a_token_looks_for_it_at_most_once_in_a_second(
    documents, one, monkeypatch
):
    deaf = await worker(documents, hears=False)
    plain = await one.add(reader())
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    assert await deaf.look_again()
    assert deaf.verify(plain).name == "reader"
    assert not await deaf.look_again()
    assert await deaf.look_again(at_once=True)
    now += module.LOOK_SECONDS
    documents.down = True
    assert not await deaf.look_again()


async def test_two_workers_that_add_at_once_lose_neither(documents):
    workers = [await worker(documents) for _ in range(2)]
    made = await asyncio.gather(*(workers[i % 2].add(reader(f"t{i}")) for i in range(10)))
    await settled()
    for tokens in (*workers, await worker(documents)):
        assert [tokens.verify(plain).name for plain in made] == [f"t{i}" for i in range(10)]


async def test_of_two_of_the_same_name_the_first_ones_stands(documents, one):
    deaf = await worker(documents, hears=False)
    plain = await one.add(reader())
    with pytest.raises(TokenExists):
        await deaf.add(reader())
    assert deaf.verify(plain).name == "reader"
    await deaf.add(reader("other"))
    assert (KIND, "reader") in documents.records


async def test_one_that_was_revoked_elsewhere_does_not_come_back(documents, one):
    deaf = await worker(documents, hears=False)
    plain = await one.add(reader())
    await deaf.look_again(at_once=True)
    await one.revoke("reader")
    await deaf.add(reader("other"))
    assert (KIND, "reader") not in documents.records
    await deaf.look_again(at_once=True)
    assert deaf.verify(plain) is None


async def test_looking_while_one_is_being_written_forgets_nothing(documents, one):
    put, looks = documents.put, []

    async def look():
        looks.append(asyncio.create_task(one.look_again(at_once=True)))
        await asyncio.sleep(0)

    async def slow(*args, **how):
        await look()
        done = await put(*args, **how)
        await look()
        return done

    documents.put = slow
    plain = await one.add(reader())
    other = await one.add(reader("other"))
    assert (one.verify(plain).name, one.verify(other).name) == ("reader", "other")
    await asyncio.gather(*looks)
    await settled()
    assert (one.verify(plain).name, one.verify(other).name) == ("reader", "other")
    assert {name for _, name in documents.records} == {"admin", "reader", "other"}


async def test_the_token_from_outside_stands_in_for_the_one_that_is_kept(documents, one):
    kept = one.new_admin_token
    other = await worker(documents, admin_token=GIVEN)
    assert (other.verify(GIVEN).name, other.verify(kept)) == (ADMIN, None)
    plain = await other.add(reader())
    await settled()
    assert (one.verify(kept).name, one.verify(plain).name, one.verify(GIVEN)) == (ADMIN, "reader", None)
    await one.add(reader("another"))
    await settled()
    assert (other.verify(GIVEN).name, other.verify(kept)) == (ADMIN, None)


async def test_given_from_outside_none_is_made(documents):
    tokens = await worker(documents, admin_token=GIVEN)
    assert (tokens.new_admin_token, documents.records) == (None, {})
    with pytest.raises(CredentialsError):
        await SharedTokens(documents, "short").load()


async def test_while_the_store_is_away_nothing_changes(documents, one):
    plain = await one.add(reader())
    documents.down = True
    with pytest.raises(CredentialsError):
        await one.add(reader("another"))
    with pytest.raises(UnknownToken):
        one.get("another")
    for attempt in (one.revoke("reader"), one.renew("reader")):
        with pytest.raises(CredentialsError):
            await attempt
    documents.down = False
    await one.add(reader("third"))
    assert one.verify(plain).name == "reader"
    assert {name for _, name in documents.records} == {"admin", "reader", "third"}


async def test_what_was_refused_and_written_all_the_same_is_undone(documents, one):
    plain = await one.add(reader())
    put = documents.put

    async def lost(*args, **how):
        await put(*args, **how)
        raise StoreDown("the connection was lost", uncertain=True)

    documents.put = lost
    with pytest.raises(CredentialsError):
        await one.renew("reader")
    documents.put = put
    await one.load()
    assert one.verify(plain).name == "reader"
    assert (await worker(documents)).verify(plain).name == "reader"


async def test_a_damaged_record_is_told_once_and_left_alone(documents, one):
    await one.add(reader())
    documents.records[KIND, "reader"] = b"{"
    with capture_logs() as logs:
        await one.look_again(at_once=True)
        await one.add(reader("another"))
    await settled()
    assert [log["token"] for log in logs] == ["reader"]
    assert documents.records[KIND, "reader"] == b"{"
    with pytest.raises(TokenExists):
        await one.add(reader())


async def test_records_that_are_written_otherwise_are_not_written_again(documents, one):
    await one.add(reader())
    record = documents.records[KIND, "reader"].replace(b",", b" , ")
    documents.records[KIND, "reader"] = record
    await one.look_again(at_once=True)
    await one.add(reader("another"))
    assert documents.records[KIND, "reader"] == record


STEP = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["add", "revoke", "renew", "turn", "down", "up"]),
    st.sampled_from(["a", "b", "c"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=30))
def test_workers_agree_with_the_store_in_the_end(steps):
    async def run():
        documents = InMemoryDocuments()
        workers = [await worker(Slow(documents)) for _ in range(2)]
        made, tasks = [], []
        for which, what, name in steps:
            tokens = workers[which]
            match what:
                case "add":
                    tasks.append(asyncio.create_task(tokens.add(reader(name))))
                case "revoke":
                    tasks.append(asyncio.create_task(tokens.revoke(name)))
                case "renew":
                    tasks.append(asyncio.create_task(tokens.renew(name)))
                case "down" | "up":
                    documents.down = what == "down"
                case _:
                    await asyncio.sleep(0)
        await settled()
        documents.down = False
        made = [plain for plain in await asyncio.gather(*tasks, return_exceptions=True) if type(plain) is str]
        for tokens in workers:
            await tokens.look_again(at_once=True)
        fresh = await worker(documents)
        for plain in made:
            assert len({tokens.verify(plain) for tokens in (*workers, fresh)}) == 1
        assert {token.name for token in fresh} == {name for _, name in documents.records}
        assert ADMIN in {token.name for token in fresh}

    asyncio.run(run())
