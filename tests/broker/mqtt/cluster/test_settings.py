"""What may be set, and what is said of what may not."""

from __future__ import annotations

import socket

import msgspec
import pytest

from thingctl_broker.mqtt.cluster.settings import LinkSettings, check_link, parse_url
from thingctl_protocol.mqtt_url import MqttUrl

URL = "mqtts://emqx.example"


def link(**fields):
    return LinkSettings(**{"urls": (URL,), "worker": "w1"} | fields)


def test_a_url_is_enough():
    settings = check_link(link(worker="w-1"))
    assert settings.endpoints == (MqttUrl("emqx.example", 8883, tls=True),)
    assert settings.client_id == "thingctl-thingctl-w-1"
    assert str(settings.endpoints[0]) == "mqtts://emqx.example:8883"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("mqtt://127.0.0.1:1884", ("127.0.0.1", 1884, False)),
        ("mqtt://a/", ("a", 1883, False)),
        ("mqtts://[::1]", ("::1", 8883, True)),
    ],
)
def test_urls(url, endpoint):
    assert parse_url(url)[:3] == endpoint
    assert parse_url(str(parse_url(url))) == parse_url(url)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"urls": ()}, "where is the cluster"),
        ({"urls": (URL, "http://emqx")}, "'http://emqx' is no URL of a cluster"),
        ({"urls": ("mqtt://",)}, "is no URL"),
        ({"urls": ("mqtt://a:99999",)}, "'mqtt://a:99999' is no URL"),
        ({"urls": ("mqtt://a/path",)}, "is no URL"),
        ({"group": "a/b"}, "group: 'a/b' stands in topics"),
        ({"group": "a+"}, "group"),
        ({"group": ""}, "need a name in common"),
        ({"worker": "größe"}, "worker: 'größe'"),
        ({"password": "x", "password_file": "y"}, "only one of them"),
        ({"urls": ("mqtt://a",), "tls_ca": "ca.pem"}, "no URL is mqtts"),
        ({"tls_key": "key.pem"}, "tls_key needs tls_cert"),
    ],
)
def test_what_will_not_do_is_refused_in_words(fields, said):
    with pytest.raises(ValueError, match=f".*{said}"):
        check_link(link(**fields))


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="no user name or password") as raised:
        check_link(link(urls=("mqtt://me:hunter2@emqx.example",)))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("field", ["receive_maximum", "session_expiry", "keep_alive"])
def test_numbers_have_bounds(field):
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({field: 0}, LinkSettings)


def test_the_workers_name_is_the_hosts_unless_set(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node-3")
    assert check_link(link(worker="")).client_id == "thingctl-thingctl-node-3"
    monkeypatch.setattr(socket, "gethostname", lambda: "a b")
    with pytest.raises(ValueError, match="this host's name, 'a b', will not do"):
        check_link(link(worker=""))


def test_the_password_comes_from_settings_file_or_environment_and_is_never_shown(tmp_path):
    (tmp_path / "p").write_text("from-file\n")
    assert link(password="hunter2").secret({}) == "hunter2"
    assert link(password_file=str(tmp_path / "p")).secret({}) == "from-file"
    assert link().secret({"THINGCTL_LINK_PASSWORD": "from-env"}) == "from-env"
    assert link().secret({}) == ""
    shown = repr(link(password="hunter2"))
    assert "hunter2" not in shown
    assert "emqx.example" in shown
