"""The file of the tokens: closed to others, hashes only, whole or left alone."""

from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest

from thingctl_broker.security import token_file
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import CredentialsError

CHOSEN = "chosen-by-the-operator"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


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
        token_file._write(file / "x", b"")


def test_a_crash_while_writing_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CredentialsError, match="cannot be written: No space left on device"):
        TokenStore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
