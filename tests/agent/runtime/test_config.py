"""Settings: where they come from, and what is wrong with them in words."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.harness import ROOT
from thingctl_agent import actions
from thingctl_agent.errors import ConfigError
from thingctl_agent.handlers.registry import Registry
from thingctl_agent.runtime.config import Config, Log, Tls, load, parse_url
from thingctl_protocol.mqtt_url import MqttUrl


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("agent*.toml")), ids=lambda p: p.name)
def test_each_shipped_file_loads_and_its_actions_can_be_enabled(path):
    config = load(str(path), {})
    actions.enable(Registry(), config.actions)


def test_the_shipped_file_names_the_defaults():
    config = load(str(ROOT / "configs" / "agent.toml"), {})
    assert config == Config(thing="thermostat-001")


@pytest.mark.parametrize(
    "key",
    [
        *Config.__struct_fields__,
        *(f"tls.{k}" for k in Tls.__struct_fields__),
        *(f"log.{k}" for k in Log.__struct_fields__),
    ],
)
def test_each_setting_is_documented(key):
    text = (ROOT / "docs" / "agent.md").read_text()
    assert key in {"tls", "log", "actions"} or re.search(rf"`{re.escape(key)}[`,]", text), key


def test_the_file_gives_way_to_the_environment_and_that_to_the_command_line(tmp_path):
    (tmp_path / "a.toml").write_text('thing = "file"\nurl = "mqtt://file"\nusername = "file"\n')
    environment = {
        "THINGCTL_CONFIG": str(tmp_path / "a.toml"),
        "THINGCTL_THING": "env",
        "THINGCTL_USERNAME": "env",
    }
    config = load(None, environment, thing="option", url=None)
    assert (config.thing, config.username, config.url) == ("option", "env", "mqtt://file")


@pytest.mark.parametrize(("word", "value"), [("on", True), ("off", False), (True, True), (None, False)])
def test_presence_is_on_or_off(word, value):
    assert load(None, {}, thing="t", presence=word).presence is value


def test_what_is_neither_on_nor_off_is_refused():
    with pytest.raises(ConfigError, match="presence: Expected `bool`"):
        load(None, {}, thing="t", presence="perhaps")


def test_a_url_that_is_not_a_brokers_is_not_taken_from_the_environment():
    config = load(None, {"THINGCTL_THING": "t", "THINGCTL_URL": "http://127.0.0.1:8080"})
    assert config.url == "mqtt://127.0.0.1:1883"
    both = {"THINGCTL_THING": "t", "THINGCTL_URL": "mqtt://a", "THINGCTL_MQTT_URL": "mqtt://b"}
    assert load(None, both).url == "mqtt://b"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "which thing is this"),
        ({"thing": "a b"}, "can't name a thing"),
        ({"thing": "t", "url": "http://x"}, "is no broker's URL"),
        ({"thing": "t", "url": "mqtt://"}, "is no broker's URL"),
        ({"thing": "t", "url": "mqtt://x:99999"}, "is no broker's URL"),
        ({"thing": "t", "url": "mqtt://x/path"}, "is no broker's URL"),
        ({"thing": "t", "topic_root": "a/#"}, "topic_root"),
        ({"thing": "t", "keepalive": 1}, "keepalive"),
        ({"thing": "t", "keepalive": "60"}, "keepalive: Expected `int`"),
        ({"thing": "t", "running": 0}, "running"),
        ({"thing": "t", "tls": {"ca": "x"}}, "write mqtts://"),
        ({"thing": "t", "url": "mqtts://x", "tls": {"key": "x"}}, "needs tls.cert"),
        ({"thing": "t", "tls": {"other": "x"}}, "unknown field `other`"),
        ({"thing": "t", "colour": "red"}, "unknown field `colour`"),
    ],
)
def test_what_is_wrong_is_said(settings, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        load(None, {}, **settings)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no/such"):
        load("/no/such", {})
    (tmp_path / "bad.toml").write_text("thing = ")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(str(tmp_path / "bad.toml"), {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(str(tmp_path / "bytes.toml"), {})


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://h", MqttUrl("h", 1883, tls=False)),
        ("mqtts://h", MqttUrl("h", 8883, tls=True)),
        ("mqtt://[::1]:18", MqttUrl("::1", 18, tls=False)),
        ("mqtts://u:p@h:1/", MqttUrl("h", 1, tls=True, username="u", password="p")),
    ],
)
def test_urls_are_read(url, broker):
    assert parse_url(url) == broker


def test_a_wrong_url_is_named_without_its_password():
    with pytest.raises(ConfigError, match=r"'mqtt://…@h:99999' is no broker's URL") as raised:
        parse_url("mqtt://me:hunter2@h:99999")
    assert "hunter2" not in str(raised.value)


@given(st.text())
def test_any_text_is_a_url_or_a_config_error(text):
    try:
        parse_url(text)
    except ConfigError:
        pass


def test_the_password_may_be_in_a_file(tmp_path):
    (tmp_path / "p").write_text("s3cret\n")
    assert Config(password_file=str(tmp_path / "p")).secret == "s3cret"
    (tmp_path / "p").write_bytes(b"s3cret\r\n")  # written on Windows
    assert Config(password_file=str(tmp_path / "p")).secret == "s3cret"
    assert Config(password="direct").secret == "direct"
    with pytest.raises(ConfigError, match="password_file cannot be read"):
        _ = Config(password_file="/no/such").secret


@pytest.mark.parametrize(
    ("settings", "login"),
    [
        ({}, ("", "")),
        ({"password": "p"}, ("t", "p")),
        ({"password": "p", "username": "u"}, ("u", "p")),
        ({"username": "u"}, ("u", "")),
        ({"url": "mqtt://u:p@h"}, ("u", "p")),
        ({"url": "mqtts://h", "tls": {"cert": "c"}}, ("", "")),
    ],
)
def test_a_password_without_a_user_name_signs_in_as_the_thing(settings, login):
    assert load(None, {}, thing="t", **settings).login == login


@pytest.mark.parametrize("url", ["mqtt://h", "mqtts://h"])
def test_an_authority_in_the_environment_is_used_where_there_is_tls(url):
    tls = load(None, {"THINGCTL_CA": "/ca.pem", "THINGCTL_MQTT_URL": url}, thing="t").tls
    assert tls.ca == ("/ca.pem" if url == "mqtts://h" else "")


def test_the_state_directory(monkeypatch, tmp_path):
    assert str(Config(state_dir="/x").state) == "/x"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")
    assert str(Config().state) == "/var/lib/a"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Config(thing="t").state == str(tmp_path / "thingctl-agent" / "t")


def test_settings_are_what_toml_can_say():
    assert msgspec.convert(msgspec.to_builtins(Config()), Config) == Config()


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.toml").write_text('handlers = ["a.py"]\ntls = {ca = "ca.pem"}\nurl = "mqtts://b"')
    config = load("agent.toml", {}, thing="t", password_file="pw", state_dir="s")
    monkeypatch.chdir("/")
    found = (*config.handlers, config.tls.ca, config.password_file, config.state_dir)
    assert found == tuple(str(tmp_path / name) for name in ("a.py", "ca.pem", "pw", "s"))
    assert config.tls.cert == ""


@pytest.mark.parametrize("grace", [-1, 601])
def test_a_stop_grace_out_of_bounds_is_refused(grace):
    with pytest.raises(ConfigError, match="stop_grace is 0 to 600"):
        load(None, {}, thing="t", stop_grace=grace)
