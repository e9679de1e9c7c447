"""Which token goes where."""

from __future__ import annotations

import socket

import pytest

from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import connect

LOCAL = "http://127.0.0.1:8080"


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


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


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://localhost.example"])
def test_the_admin_token_is_sent_nowhere_else(data, url):
    (data / "admin-token").write_text("the-admin-token\n")
    assert refusal(url).code is Exit.UNAUTHORIZED
    assert connect(url, "given")._headers["Authorization"] == "Bearer given"


def test_no_token_at_all_names_the_places_that_were_looked_at(data, listening):
    found = refusal(listening)
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


def test_without_a_token_and_without_a_broker_the_broker_is_what_is_missing():
    found = refusal("http://127.0.0.1:1")
    assert found.code is Exit.UNREACHABLE
    assert "thingctl serve" in found.text


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_an_mqtt_address_is_the_agents(monkeypatch, scheme):
    url = f"{scheme}://127.0.0.1:1883"
    assert refusal(url, "t").text.startswith("--url is the HTTP API's address")
    monkeypatch.setenv("THINGCTL_URL", url)
    found = refusal(url, "t")
    assert found.code is Exit.USAGE
    assert found.text.startswith("THINGCTL_URL is the HTTP API's address")
    assert "the agent's is THINGCTL_MQTT_URL" in found.text


def test_a_user_name_in_the_url_is_refused_and_not_repeated():
    found = refusal("http://user:secret@127.0.0.1:8080", "t")
    assert (found.code, "secret" in found.text) == (Exit.USAGE, False)
    assert "--token or THINGCTL_TOKEN" in found.text
