"""Which token goes where."""

from __future__ import annotations

import pytest

from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import connect

LOCAL = "http://127.0.0.1:8080"


def refusal(url, token=""):
    with pytest.raises(Failure) as raised:
        connect(url, token)
    return raised.value


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("THINGCTL_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("url", [LOCAL, "http://localhost:1", "http://[::1]:8080", "https://127.1.2.3"])
def test_the_admin_token_is_used_on_this_machine(data, url):
    (data / "admin-token").write_text("the-admin-token\n")
    assert connect(url, "")._headers["Authorization"] == "Bearer the-admin-token"


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1", "http://localhost.example", "http://127.0.0.1@192.0.2.1"]
)
def test_the_admin_token_is_sent_nowhere_else(data, url):
    (data / "admin-token").write_text("the-admin-token\n")
    assert refusal(url).code is Exit.UNAUTHORIZED
    assert connect(url, "given")._headers["Authorization"] == "Bearer given"


def test_no_token_at_all_names_the_places_that_were_looked_at(data):
    found = refusal(LOCAL)
    assert found.code is Exit.UNAUTHORIZED
    for place in ("--token", "THINGCTL_TOKEN", str(data / "admin-token")):
        assert place in found.text


def test_a_token_file_that_cannot_be_read(data):
    (data / "admin-token").mkdir()
    assert refusal(LOCAL).text.endswith("cannot be read: Is a directory")
    (data / "admin-token").rmdir()
    (data / "admin-token").write_bytes(b"\xff")
    assert refusal(LOCAL).text.endswith("cannot be read: it is not text")


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "ä"])
def test_a_token_that_would_break_the_request_is_refused(data, token):
    assert refusal(LOCAL, token).code is Exit.UNAUTHORIZED
    (data / "admin-token").write_text(token, encoding="utf-8")
    assert refusal(LOCAL).code is Exit.UNAUTHORIZED
