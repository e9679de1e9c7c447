"""Passwords: hashed dearly, verified in threads, remembered, limited."""

import asyncio

import pytest

from thingctl_broker.security import passwords as module
from thingctl_broker.security.login_throttle import LoginThrottle
from thingctl_broker.security.passwords import Busy, Passwords, TooManyFailures, make_password
from thingctl_broker.security.rate_limit import Rate


@pytest.fixture
def passwords():
    made = Passwords()
    yield made
    made.close()


async def test_the_right_password_is_right_and_no_other_is(passwords):
    password_hash = await passwords.hash("correct horse battery")
    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify("lamp", (password_hash,), b"correct horse battery", "10.0.0.1")
    for wrong in (b"", b"correct horse batterx", b"correct horse battery\0", b"\xff\xfe", b"x" * 5000):
        assert not await passwords.verify("lamp", (password_hash,), wrong, "10.0.0.1")


async def test_no_hash_has_no_password(passwords):
    for tried in (b"", b"x"):
        assert not await passwords.verify("lamp", (), tried, "10.0.0.1")
        assert not await passwords.verify("lamp", ("damaged",), tried, "10.0.0.1")


async def test_what_was_right_is_remembered_for_that_hash_alone(passwords):
    password_hash = await passwords.hash("right")
    assert not passwords.remembers("lamp", (password_hash,), b"right")
    await passwords.verify("lamp", (password_hash,), b"right", "10.0.0.1")
    assert passwords.remembers("lamp", (password_hash,), b"right")
    assert not passwords.remembers("lamp", (password_hash,), b"wrong")
    assert not passwords.remembers("lock", (password_hash,), b"right")
    assert not passwords.remembers("lamp", (await passwords.hash("right"),), b"right")
    assert b"right" not in repr(vars(passwords)).encode()


async def test_an_address_that_fails_too_often_has_to_wait(passwords):
    password_hash = await passwords.hash("right")
    passwords._limit = LoginThrottle(of_name=Rate(1e-9, 3))
    tries = [passwords.verify("lamp", (password_hash,), b"wrong", "10.0.0.1") for _ in range(20)]
    verdicts = await asyncio.gather(*tries, return_exceptions=True)
    # Two were under way when the third failed.
    assert 3 <= sum(verdict == "" for verdict in verdicts) <= 4
    assert all(verdict == "" or isinstance(verdict, TooManyFailures) for verdict in verdicts)
    with pytest.raises(TooManyFailures):
        await passwords.verify("lamp", (password_hash,), b"right", "10.0.0.1")
    assert await passwords.verify("lamp", (password_hash,), b"right", "10.0.0.2")
    assert await passwords.verify("lock", (password_hash,), b"right", "10.0.0.1")


async def test_no_more_wait_than_may(passwords, monkeypatch):
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    password_hash = await passwords.hash("right")
    tries = [passwords.verify("lamp", (password_hash,), b"right", "10.0.0.1") for _ in range(5)]
    verdicts = await asyncio.gather(*tries, return_exceptions=True)
    assert verdicts.count(password_hash) == 2
    assert sum(isinstance(verdict, Busy) for verdict in verdicts) == 3


def test_passwords_are_long_and_never_twice_the_same():
    made = {make_password() for _ in range(1000)}
    assert len(made) == 1000
    assert min(map(len, made)) == 32


async def test_an_old_password_is_right_beside_the_new_one_and_both_are_remembered(passwords):
    old, new = await passwords.hash("the old one"), await passwords.hash("the new one")
    passwords._limit = LoginThrottle(of_name=Rate(1e-9, 1))
    for _ in range(3):
        assert await passwords.verify("lamp", (new, old), b"the old one", "10.0.0.1") == old
    assert await passwords.verify("lamp", (new, old), b"the new one", "10.0.0.1") == new
    assert passwords.remembers("lamp", (new, old), b"the old one") == old
    assert passwords.remembers("lamp", (new, old), b"the new one") == new
    assert passwords.remembers("lamp", (new,), b"the old one") == ""
    assert await passwords.verify("lamp", (new,), b"the old one", "10.0.0.1") == ""
    with pytest.raises(TooManyFailures):
        await passwords.verify("lamp", (new,), b"the old one", "10.0.0.1")
