"""Settings: whole or not at all, and every one of them in the file that ships."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from amqtt.utils import read_yaml_config

from thingctl_broker.app.config import Settings, check, convert_settings, read_settings
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.cluster.settings import LinkSettings
from thingctl_broker.storage.postgres.settings import StoreSettings

CONFIGS = Path(__file__).parents[3] / "configs"
NO_DEFAULT_TO_SHOW = {"data_dir"}
OF_A_WORKER = {"link", "store"}


def uncommented(text: str) -> str:
    """The file as it is when every setting is taken in use."""
    return re.sub(r"(?m)^# (?=\w+ = )", "", text)


def with_everything() -> dict:
    """Every setting and its default, by the file's names."""
    return msgspec.json.decode(msgspec.json.encode(Settings()))


def test_every_setting_stands_in_the_file_that_ships_with_its_default():
    shown = msgspec.toml.decode(uncommented((CONFIGS / "broker.toml").read_text()))
    wanted = with_everything()
    for name in NO_DEFAULT_TO_SHOW:
        assert shown.pop(name)
        wanted.pop(name)
    for name in OF_A_WORKER:
        wanted.pop(name)
    assert shown == wanted


def test_the_file_that_ships_changes_nothing():
    assert read_settings(CONFIGS / "broker.toml") == Settings()


def test_the_file_that_ships_is_sound_with_everything_in_use(tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(uncommented((CONFIGS / "broker.toml").read_text()))
    assert msgspec.structs.replace(read_settings(path), data_dir=None) == Settings()


def test_every_setting_of_a_worker_stands_in_its_file_with_its_default():
    shown = msgspec.toml.decode(uncommented((CONFIGS / "worker.toml").read_text()))
    assert shown["link"].pop("urls")
    assert shown["store"].pop("url")
    defaults = msgspec.json.decode(msgspec.json.encode((LinkSettings(), StoreSettings())))
    for section, wanted in zip(("link", "store"), defaults, strict=True):
        assert shown[section] == {name: value for name, value in wanted.items() if not name.startswith("url")}
    whole = with_everything()
    for section in ("mqtt",):
        assert {name: whole[section][name] for name in shown[section]} == shown[section]


def test_the_workers_file_makes_a_worker():
    settings = read_settings(CONFIGS / "worker.toml")
    assert settings.link == LinkSettings(urls=("mqtts://emqx.example:8883",))
    assert msgspec.structs.replace(settings, link=None, store=None) == Settings()


def test_what_a_file_leaves_open_an_option_may_say_before_the_whole_is_checked(tmp_path):
    file = tmp_path / "worker.toml"
    file.write_text('link.username = "w"\nlink.urls = ["mqtt://h"]\n')
    with pytest.raises(ConfigurationError, match=r"worker\.toml: .*need a database"):
        read_settings(file)
    store = StoreSettings(url="postgresql://h/d")
    settings = read_settings(file, lambda said: msgspec.structs.replace(said, store=store))
    assert (settings.link.username, settings.store) == ("w", store)


def test_the_yaml_that_ships_is_sound():
    plugins = read_yaml_config(str(CONFIGS / "amqtt.yaml"))["plugins"]
    (options,) = plugins.values()
    settings = convert_settings(options["settings"])
    assert settings == msgspec.structs.replace(Settings(), open=True)


def test_every_file_that_ships_is_tested_here():
    assert {path.name for path in CONFIGS.iterdir()} >= {"broker.toml", "worker.toml", "amqtt.yaml"}


WRONG = [
    ({"link": {"urls": ["mqtt://h"]}}, "need a database"),
    ({"store": {"url": "postgresql://h/d"}}, "link"),
    ({"link": {"urls": []}, "store": {"url": "postgresql://h/d"}}, "where is the cluster"),
    ({"link": {"urls": ["http://h"]}, "store": {"url": "postgresql://h/d"}}, "urls"),
    ({"link": {"urls": ["mqtt://h"]}, "store": {"url": "mysql://h/d"}}, "store"),
    ({"link": {"urls": ["mqtt://h"]}, "store": {"url": "postgresql://h"}}, "database"),
    ({"link": {"urls": ["mqtt://h"], "pool": 1}, "store": {"url": "postgresql://h/d"}}, "pool"),
    ({"opne": True}, "opne"),
    ({"mqtt": {"sys_interval": -1}}, "sys_interval"),
    ({"amqtt": {"plugins": {"a.B": 1}}}, "plugins"),
    ({"open": "yes"}, "open"),
    ({"mqtt": {"bind": "1883"}}, "HOST:PORT"),
    ({"mqtt": {"bind": "localhost:99999"}}, "HOST:PORT"),
    ({"http": {"bind": ""}}, "HOST:PORT"),
    ({"mqtt": {"topic_root": "a/#"}}, "topic root"),
    ({"mqtt": {"port": 1}}, "port"),
    ({"open": True, "mqtt": {"bind": "0.0.0.0:1883"}}, "loopback only"),
    ({"open": True, "mqtt": {"bind": "broker.example:1883"}}, "loopback only"),
    ({"http": {"requests_per_second": -1}}, "requests_per_second"),
    ({"http": {"requests_per_second": 1e-9}}, "requests_per_second"),
    ({"http": {"requests_per_second": float("inf")}}, "requests_per_second"),
    ({"http": {"requests_per_second": float("nan")}}, "requests_per_second"),
    ({"http": {"burst": 0}}, "burst"),
    ({"commands": {"ttl_default": 0}}, "ttl_default"),
    ({"commands": {"ttl_default": 61, "ttl_max": 60}}, "ttl_max"),
    ({"commands": {"ttl_max": 604801}}, "ttl_max"),
    ({"commands": {"cancel_grace": 0.5}}, "cancel_grace"),
    ({"commands": {"cancel_grace": float("inf")}}, "cancel_grace"),
    ({"commands": {"cancel_grace": float("nan")}}, "cancel_grace"),
    ({"commands": {"window": 0}}, "window"),
    ({"commands": {"queue": 0}}, "queue"),
    ({"commands": {"table": -1}}, "table"),
    ({"commands": {"window": 2000}}, "limits.in_flight"),
    ({"commands": {"keep": "a week"}}, "keep"),
    ({"commands": {"keep": -1.0}}, "keep"),
    ({"limits": {"connections": 0}}, "connections"),
    ({"limits": {"packet_bytes": 0}}, "packet_bytes"),
    ({"limits": {"packet_bytes": 300_000_000}}, "packet_bytes"),
    ({"limits": {"connect_timeout": 0}}, "connect_timeout"),
    ({"limits": {"write_timeout": -5}}, "write_timeout"),
    ({"limits": {"in_flight": 40_000}}, "in_flight"),
    ({"limits": {"speed": 1}}, "speed"),
    *(
        ({"mqtt": {"websocket_origins": [origin]}}, "mqtt: websocket_origins")
        for origin in ("app.example", "https://app.example/", "")
    ),
    ({"mqtt": {"websocket_origins": "*"}}, "websocket_origins"),
    ({"mqtt": {"proxy_protocol_from": ["10.0.0.1/8"]}}, "mqtt: proxy_protocol_from: '10.0.0.1/8'"),
    ({"http": {"proxy_protocol_from": ["proxy.example"]}}, "http: proxy_protocol_from: 'proxy.example'"),
    ({"http": {"trusted_proxies": [""]}}, "http: trusted_proxies: ''"),
    ({"http": {"trusted_proxies": "10.0.0.0/8"}}, "trusted_proxies"),
    *(
        ({"http": {"public_url": url}}, "public_url")
        for url in (
            "fleet.example",
            "ftp://fleet.example",
            "https://",
            "https://u:p@fleet.example",
            "https://fleet.example?x=1",
            "https://fleet.example/#/things",
            "https://fleet.example:port",
            "https://fleet example",
            "https://[fleet",
        )
    ),
]


@pytest.mark.parametrize(("values", "word"), WRONG, ids=[str(values) for values, _ in WRONG])
def test_what_makes_no_sense_is_refused_in_a_sentence_that_names_it(values, word):
    with pytest.raises(ConfigurationError) as fault:
        convert_settings(values)
    assert word in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("", set()),
        ("https://Fleet.example/thingctl/", {"fleet.example"}),
        ("https://fleet.example:443", {"fleet.example"}),
        ("http://fleet.example:443", {"fleet.example:443"}),
        ("HTTP://[::1]:80/x", {"[::1]"}),
    ],
)
def test_the_public_host_is_as_a_browser_names_it(url, hosts):
    assert convert_settings({"http": {"public_url": url}}).http.public_hosts == hosts


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"open = ", "TOML"),
        (b"\xff\xfe", "broker.toml"),
        (b"open = 1", "open"),
        (b"[mqtt]\nbind = 'x'", "HOST:PORT"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_name(tmp_path, text, word):
    path = tmp_path / "broker.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError) as fault:
        read_settings(path)
    assert str(path) in str(fault.value)
    assert word.lower() in str(fault.value).lower()


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path, kind):
    path = tmp_path if kind == "directory" else tmp_path / "broker.toml"
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_settings(path)


def test_what_the_service_needs_is_handed_on():
    settings = convert_settings({"commands": {"ttl_default": 5, "ttl_max": 50, "cancel_grace": 3}})
    assert settings.service == ServiceSettings(5, 50, 3)


def test_the_defaults_make_sense():
    assert check(Settings()) == Settings()


@pytest.mark.parametrize(
    "endpoint",
    [{"url": "nowhere", "secret": "0123456789abcdef"}, {"url": "https://a.example", "secret": "short"}],
)
def test_endpoints_of_webhooks_are_checked(endpoint):
    with pytest.raises(ConfigurationError):
        convert_settings({"webhooks": {"endpoints": [endpoint]}})
