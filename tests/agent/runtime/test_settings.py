"""Sources of settings: which wins, and what a bundle replaces."""

from __future__ import annotations

import pytest

from thingctl_agent.errors import ConfigError
from thingctl_agent.runtime.settings import from_environment, merge, misnamed_url, read_bundle
from thingctl_protocol.bundle import BUNDLE_MAX, Bundle, encode_bundle

PEM = "-----BEGIN CERTIFICATE-----"


@pytest.fixture
def bundle(tmp_path):
    file = tmp_path / "pump.bundle"
    file.write_bytes(encode_bundle(Bundle("pump-1", "mqtts://b:8883", "pump-1", "secret", ca=PEM)))
    return str(file)


def test_a_later_source_wins_and_none_is_not_given():
    assert merge({"thing": "a", "url": "u"}, {"thing": "b"}, {"thing": None}) == {"thing": "b", "url": "u"}
    assert merge({"tls": {"ca": "1", "key": "k"}}, {"tls": {"ca": "2", "key": None}})["tls"] == {
        "ca": "2",
        "key": "k",
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"password_file": "/file"}, {"password": "new"}),
        ({"password": "old"}, {"password_file": "/file"}),
    ],
)
def test_a_later_password_replaces_an_earlier_one_of_either_kind(first, second):
    assert merge(first, second) == second


def test_a_bundle_replaces_the_credentials_before_it_and_gives_way_to_what_is_beside_and_after_it(bundle):
    before = {"password_file": "/old", "username": "old", "tls": {"cert": "/old"}, "keepalive": 30}
    merged = merge(before, {"bundle": bundle, "url": "mqtts://beside"}, {"thing": "after"})
    assert merged == {
        "keepalive": 30,
        "thing": "after",
        "url": "mqtts://beside",
        "username": "pump-1",
        "password": "secret",
        "topic_root": "$emqx/commands",
        "tls": {"ca": PEM},
    }


def test_the_environment_has_all_that_a_connection_needs():
    variables = {"BUNDLE": "b", "THING": "t", "PASSWORD": "p", "CA": "c", "MQTT_URL": "mqtts://h", "CERT": ""}
    assert from_environment({f"THINGCTL_{key}": value for key, value in variables.items()}) == {
        "bundle": "b",
        "thing": "t",
        "password": "p",
        "tls": {"ca": "c"},
        "url": "mqtts://h",
    }


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"THINGCTL_URL": "mqtt://h"}, "mqtt://h"),
        ({"THINGCTL_URL": "http://h"}, ""),
        ({"THINGCTL_URL": "mqtt://h", "THINGCTL_MQTT_URL": "mqtt://other"}, ""),
    ],
)
def test_a_url_in_the_variable_of_the_other_command_is_found(environ, url):
    assert misnamed_url(environ) == url


@pytest.mark.parametrize("content", [None, b"{}", b"\xff", b" " * (BUNDLE_MAX + 1)])
def test_what_is_no_bundle_is_refused_and_named(tmp_path, content):
    file = tmp_path / "x.bundle"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.bundle: "):
        read_bundle(str(file))


def test_a_bundle_does_not_name_files_of_the_device(tmp_path):
    file = tmp_path / "x.bundle"
    file.write_bytes(encode_bundle(Bundle("pump-1", "mqtts://b", ca="/etc/shadow")))
    with pytest.raises(ConfigError, match=r"x\.bundle: its ca is no PEM text"):
        read_bundle(str(file))
