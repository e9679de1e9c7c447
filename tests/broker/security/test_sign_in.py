"""Codes that sign in once: over the store, alone and shared by workers."""

from __future__ import annotations

import asyncio

import pytest

from support.fleet import settled
from thingctl_broker.cluster.token_replica import SharedTokens
from thingctl_broker.security import sign_in
from thingctl_broker.security.sign_in import (
    CODE_SECONDS,
    SESSION_SECONDS,
    SESSIONS_MAX,
    NoSession,
    TooManySessions,
    UnknownCode,
    digest_of_code,
)
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import CredentialsError, Scope, Token, digest_of
from thingctl_broker.testing.cluster_records import InMemoryDocuments

READER = Token("reader", frozenset({Scope.COMMANDS_READ}), ("lamp-*",))


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def store(clock):
    store = TokenStore({digest_of("tctl_admin"): Token("admin", frozenset({Scope.ADMIN}))}, now=clock)
    store.secret = await store.add(READER)
    return store


@pytest.fixture
def reader(store):
    return store.get("reader")


async def test_a_code_signs_in_once_with_the_rights_of_its_token(store, reader, clock):
    code, offered = await store.offer(reader)
    assert offered.name.startswith("console-reader-")
    assert offered.expires_at == clock.now + CODE_SECONDS
    assert store.verify(code) is None, "a code is no token"
    plain, session = await store.redeem(code)
    assert store.verify(plain) is session
    assert (session.scopes, session.things) == (reader.scopes, reader.things)
    assert session.expires_at == clock.now + SESSION_SECONDS
    with pytest.raises(UnknownCode):
        await store.redeem(code)
    assert [token.name for token in store] == ["admin", session.name, "reader"]


async def test_no_token_has_the_digest_of_a_code():
    assert digest_of_code("abc") != digest_of("abc")
    with pytest.raises(UnicodeEncodeError):
        digest_of("\xffsign-in\x00abc")


async def test_a_code_and_a_session_expire(store, reader, clock):
    code, _ = await store.offer(reader)
    clock.now += CODE_SECONDS
    assert store.offered(code) is None
    with pytest.raises(UnknownCode):
        await store.redeem(code)
    plain, session = await store.redeem((await store.offer(reader))[0])
    clock.now += SESSION_SECONDS
    assert store.verify(plain) is None
    assert not store.stands(session)
    await store.offer(reader)
    assert session.name not in {token.name for token in store}, "ended sessions are not kept for ever"


async def test_a_session_ends_with_the_token_that_it_was_made_with(store, reader):
    code, _ = await store.offer(reader)
    plain, session = await store.redeem((await store.offer(reader))[0])
    await store.renew("reader")
    assert store.verify(plain) is None
    assert not store.stands(session)
    assert store.offered(code) is None
    other, _ = await store.redeem((await store.offer(store.get("reader")))[0])
    await store.revoke("reader")
    assert store.verify(other) is None


async def test_a_session_never_outlives_a_token_that_expires(store, clock):
    await store.add(Token("short", frozenset({Scope.COMMANDS_READ}), expires_at=clock.now + 60))
    code, offered = await store.offer(store.get("short"))
    _, session = await store.redeem(code)
    assert offered.expires_at == session.expires_at == clock.now + 60


async def test_a_session_makes_no_further_one(store, reader):
    _, session = await store.redeem((await store.offer(reader))[0])
    with pytest.raises(NoSession):
        await store.offer(session)


async def test_codes_and_sessions_of_a_token_are_bounded(store, reader, clock):
    for _ in range(SESSIONS_MAX):
        await store.offer(reader)
    with pytest.raises(TooManySessions):
        await store.offer(reader)
    await store.offer(store.get("admin"))
    clock.now += CODE_SECONDS
    await store.offer(reader)


async def test_the_longest_name_gives_a_session_a_name(store):
    await store.add(Token("n" * 128, frozenset({Scope.COMMANDS_READ})))
    _, session = await store.offer(store.get("n" * 128))
    assert len(session.name) == 128


async def test_what_cannot_be_kept_leaves_the_code_as_it_was(clock):
    fails = False

    async def keep(tokens):
        if fails:
            raise CredentialsError("the disk is full")

    store = TokenStore({digest_of("x" * 20): Token("admin", frozenset({Scope.ADMIN}))}, keep=keep, now=clock)
    code, offered = await store.offer(store.get("admin"))
    fails = True
    with pytest.raises(CredentialsError):
        await store.redeem(code)
    with pytest.raises(CredentialsError):
        await store.offer(store.get("admin"))
    assert store.offered(code) is offered
    fails = False
    await store.redeem(code)


async def test_it_is_in_the_file_and_outlives_a_restart(tmp_path):
    store = TokenStore.open(tmp_path)
    code, _ = await store.offer(store.get("admin"))
    again = TokenStore.open(tmp_path)
    plain, _ = await again.redeem(code)
    assert code not in (tmp_path / "tokens.json").read_text()
    assert TokenStore.open(tmp_path).verify(plain)


async def workers(documents, count=2):
    made = [SharedTokens(documents) for _ in range(count)]
    for one in made:
        await one.load()
    return made


async def test_another_worker_takes_the_code_and_of_two_only_one():
    one, two = await workers(InMemoryDocuments())
    code, _ = await one.offer(one.get("admin"))
    assert two.offered(code) is None
    await two.look_again(at_once=True)
    results = await asyncio.gather(one.redeem(code), two.redeem(code), return_exceptions=True)
    await settled()
    begun = [result for result in results if isinstance(result, tuple)]
    refused = [result for result in results if isinstance(result, UnknownCode)]
    assert (len(begun), len(refused)) == (1, 1)
    for worker in (one, two):
        await worker.look_again(at_once=True)
        assert worker.verify(begun[0][0])
        assert worker.offered(code) is None


async def test_a_code_that_another_worker_has_revoked_is_not_brought_back():
    documents = InMemoryDocuments()
    one, two = await workers(documents)
    code, offered = await one.offer(one.get("admin"))
    await two.look_again(at_once=True)
    await one.revoke(offered.name)
    with pytest.raises(UnknownCode):
        await two.redeem(code)
    assert {name for _, name in documents.records} == {"admin"}
    assert [token.name for token in two] == ["admin"]


def test_the_seconds_are_those_of_the_page():
    assert (sign_in.CODE_SECONDS, sign_in.SESSION_SECONDS) == (300, 43200)
