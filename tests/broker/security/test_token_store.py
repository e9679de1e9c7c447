"""Tokens: made once, kept as hashes, verified."""

from __future__ import annotations

import hashlib
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.security import token_file, token_store
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import CredentialsError, Token

CHOSEN = "chosen-by-the-operator"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_an_admin_token_and_tells_it_once(tmp_path):
    data = tmp_path / "new" / "data"
    store = TokenStore.open(data)
    plain = store.new_admin_token
    assert store.verify(plain) == Token("admin", frozenset({"admin"}))
    assert (data / "admin-token").read_text() == plain + "\n"
    assert mode(data / "admin-token") == mode(data / "tokens.json") == 0o600
    assert mode(data) == 0o700
    assert sorted(path.name for path in data.iterdir()) == ["admin-token", "tokens.json"]
    again = TokenStore.open(data)
    assert again.new_admin_token is None
    assert again.verify(plain) == Token("admin", frozenset({"admin"}))


def test_the_operators_copy_is_never_read_back(tmp_path):
    plain = TokenStore.open(tmp_path).new_admin_token
    (tmp_path / "admin-token").write_text("x" * 40)
    store = TokenStore.open(tmp_path)
    assert store.verify("x" * 40) is None
    assert store.verify(plain)
    (tmp_path / "admin-token").unlink()
    assert TokenStore.open(tmp_path).verify(plain)


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = TokenStore.open(None)
    assert store.verify(store.new_admin_token)
    assert list(tmp_path.iterdir()) == []


def test_a_chosen_admin_token_stands_in_for_the_stored_one_and_is_never_written(tmp_path):
    stored = TokenStore.open(tmp_path).new_admin_token
    before = (tmp_path / "tokens.json").read_bytes()
    store = TokenStore.open(tmp_path, CHOSEN)
    assert store.new_admin_token is None
    assert store.verify(CHOSEN)
    assert store.verify(stored) is None
    assert (tmp_path / "tokens.json").read_bytes() == before
    assert TokenStore.open(tmp_path).verify(stored)


def test_a_chosen_admin_token_leaves_other_tokens_alone(tmp_path):
    other = "tctl_other-token-of-somebody"
    TokenStore.open(tmp_path)
    stored = json.loads((tmp_path / "tokens.json").read_text())
    digest = hashlib.sha256(other.encode()).hexdigest()
    stored["tokens"].append({"name": "ci", "scopes": ["read"], "sha256": digest})
    (tmp_path / "tokens.json").write_text(json.dumps(stored))
    assert TokenStore.open(tmp_path, CHOSEN).verify(other) == Token("ci", frozenset({"read"}))


def test_a_first_start_with_a_chosen_token_makes_none(tmp_path):
    store = TokenStore.open(tmp_path / "data", CHOSEN)
    assert store.verify(CHOSEN)
    assert store.new_admin_token is None
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "with a space in it", "x" * 20 + "\n", "ümlaut" * 5]
)
def test_a_chosen_token_that_cannot_be_one_is_refused(token):
    with pytest.raises(CredentialsError, match="16 or more of the characters"):
        TokenStore.open(None, token)


@given(st.text(max_size=60))
def test_no_other_text_is_a_token(text):
    assert TokenStore.open(None, CHOSEN).verify(text) is None or text == CHOSEN


def test_one_character_changed_is_another_token():
    store = TokenStore.open(None, CHOSEN)
    for i in range(len(CHOSEN)):
        assert store.verify(CHOSEN[:i] + "~" + CHOSEN[i + 1 :]) is None
    assert store.verify(CHOSEN + "x") is None
    assert store.verify(CHOSEN[:-1]) is None


def test_the_whole_digest_counts_not_just_its_head():
    digest = bytes(32)
    store = TokenStore({digest: Token("a", frozenset())})
    (head, (kept, _)) = next(iter(store._tokens.items()))
    assert (kept, len(head)) == (digest, 8)
    real = token_store.digest_of
    token_store.digest_of = lambda _: bytes(31) + b"\1"
    try:
        assert store.verify("whatever") is None
    finally:
        token_store.digest_of = real


def test_a_crash_between_the_two_files_costs_nothing(tmp_path, monkeypatch):
    """The plain copy comes first, so the next start makes both anew."""
    written = []
    real = token_file._write

    def write(path, content):
        if written:
            raise CredentialsError("the power went")
        written.append(path.name)
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(token_file, "_write", write)
        with pytest.raises(CredentialsError):
            TokenStore.open(tmp_path)
    assert written == ["admin-token"]
    store = TokenStore.open(tmp_path)
    assert (tmp_path / "admin-token").read_text().strip() == store.new_admin_token


async def test_a_change_that_cannot_be_kept_is_no_change(tmp_path, monkeypatch):
    store = TokenStore.open(tmp_path)
    plain = await store.add(Token("ci", frozenset({"things:read"})))
    before = (tmp_path / "tokens.json").read_bytes()

    def full(path, content):
        raise CredentialsError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(token_file, "_write", full)
        for attempt in (
            store.add(Token("new", frozenset({"things:read"}))),
            store.revoke("ci"),
            store.renew("ci"),
        ):
            with pytest.raises(CredentialsError):
                await attempt
    assert store.verify(plain) == store.get("ci")
    assert [token.name for token in store] == ["admin", "ci"]
    assert (tmp_path / "tokens.json").read_bytes() == before
    renewed = await store.renew("ci")
    assert (store.verify(plain), store.verify(renewed).name) == (None, "ci")
