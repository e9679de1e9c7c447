"""Tokens: made once, kept as hashes, verified."""

from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker import credentials
from thingctl_broker.credentials import CredentialsError, InvalidToken, Token, TokenStore, make_token

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


def test_files_are_closed_to_others_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        TokenStore.open(tmp_path)
    finally:
        os.umask(before)
    assert mode(tmp_path / "admin-token") == mode(tmp_path / "tokens.json") == 0o600


def test_only_the_hash_is_stored(tmp_path):
    plain = TokenStore.open(tmp_path).new_admin_token
    content = (tmp_path / "tokens.json").read_text()
    assert plain not in content
    assert json.loads(content) == {
        "version": 1,
        "tokens": [
            {"name": "admin", "scopes": ["admin"], "sha256": hashlib.sha256(plain.encode()).hexdigest()}
        ],
    }


def test_the_operators_copy_is_never_read_back(tmp_path):
    plain = TokenStore.open(tmp_path).new_admin_token
    (tmp_path / "admin-token").write_text("x" * 40)
    store = TokenStore.open(tmp_path)
    assert store.verify("x" * 40) is None
    assert store.verify(plain)
    (tmp_path / "admin-token").unlink()
    assert TokenStore.open(tmp_path).verify(plain)


def test_tokens_are_long_and_never_the_same():
    made = {make_token() for _ in range(1000)}
    assert len(made) == 1000
    assert all(token.startswith("tctl_") and len(token) == 5 + 43 for token in made)  # 256 bits in base64


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
    real = credentials._digest
    credentials._digest = lambda _: bytes(31) + b"\1"
    try:
        assert store.verify("whatever") is None
    finally:
        credentials._digest = real


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 5000,
        b'{"version":1}',
        b'{"version":"1","tokens":[]}',
        b'{"version":1,"tokens":[{"name":"a","scopes":[],"sha256":"xyz"}]}',
        b'{"version":1,"tokens":[{"name":"a","scopes":"admin","sha256":"%b"}]}' % (b"0" * 64),
    ],
)
@pytest.mark.parametrize("chosen", [None, CHOSEN])
def test_a_damaged_file_is_refused_in_words_and_left_untouched(tmp_path, content, chosen):
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    with pytest.raises(CredentialsError, match="is damaged and was left as it is") as raised:
        TokenStore.open(tmp_path, chosen)
    assert str(path) in raised.value.text
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["tokens.json"]


def test_a_file_of_a_newer_version_is_refused_in_words(tmp_path):
    (tmp_path / "tokens.json").write_text('{"version":3,"somethingElse":true}')
    with pytest.raises(CredentialsError, match="newer version of thingctl"):
        TokenStore.open(tmp_path)


def test_files_that_cannot_be_read_or_written_are_refused_in_words(tmp_path):
    (tmp_path / "tokens.json").mkdir()
    with pytest.raises(CredentialsError, match="cannot be read: Is a directory"):
        TokenStore.open(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CredentialsError, match="cannot be read: Not a directory"):
        TokenStore.open(file)
    with pytest.raises(CredentialsError, match="cannot be written"):
        credentials._write(file / "x", b"")


def test_a_crash_while_writing_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CredentialsError, match="cannot be written: No space left on device"):
        TokenStore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_between_the_two_files_costs_nothing(tmp_path, monkeypatch):
    """The plain copy comes first, so the next start makes both anew."""
    written = []
    real = credentials._write

    def write(path, content):
        if written:
            raise CredentialsError("the power went")
        written.append(path.name)
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(credentials, "_write", write)
        with pytest.raises(CredentialsError):
            TokenStore.open(tmp_path)
    assert written == ["admin-token"]
    store = TokenStore.open(tmp_path)
    assert (tmp_path / "admin-token").read_text().strip() == store.new_admin_token


@pytest.mark.parametrize("scope", ["admin", "mqtt:read", "mqtt:write"])
@pytest.mark.parametrize("limit", [{"things": ("la*",)}, {"actions": ("turnOn",)}])
async def test_a_scope_for_everything_is_not_limited(scope, limit):
    store = TokenStore.open()
    with pytest.raises(InvalidToken, match=f"{scope} is not limited") as caught:
        await store.add(Token("t", frozenset({scope, "commands:send"}), **limit))
    assert caught.value.pointer == "/scopes"
    assert await store.add(Token("t", frozenset({scope, "commands:send"})))
