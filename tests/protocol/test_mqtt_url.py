"""URLs of brokers: read in one way by brokers, workers and agents."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_protocol.mqtt_url import MqttUrl, parse_mqtt_url, without_credentials

HOSTS = st.sampled_from(["a", "broker.example", "192.0.2.7", "::1", "2001:db8::5"])
URLS = st.builds(MqttUrl, HOSTS, st.integers(0, 65535), st.booleans(), st.just(""), st.just(""))


@given(URLS)
def test_what_is_written_is_read_again(url):
    assert parse_mqtt_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("mqtt://h", MqttUrl("h", 1883, tls=False)),
        ("mqtts://h/", MqttUrl("h", 8883, tls=True)),
        ("mqtts://u:p%40q@h:1", MqttUrl("h", 1, tls=True, username="u", password="p%40q")),
    ],
)
def test_the_port_follows_the_scheme(text, url):
    assert parse_mqtt_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:1883",
        "http://h",
        "mqtt://",
        "mqtt://h:99999",
        "mqtt://h:x",
        "mqtt://h/path",
        "mqtt://h?x",
        "mqtt://h#x",
        "mqtt://[::1",
    ],
)
def test_what_is_no_url_of_a_broker_is_refused_in_words(text):
    with pytest.raises(ValueError, match=r"^write mqtt://host:port, or mqtts://host:port for TLS$"):
        parse_mqtt_url(text)


@given(st.text("ab:@/?#[]%é", max_size=30))
def test_no_text_does_more_than_be_refused(text):
    try:
        found = parse_mqtt_url(f"mqtt://{text}")
    except ValueError:
        return
    assert found.host
    assert 0 <= found.port <= 65535


@given(st.text(max_size=10), st.text(max_size=10))
def test_credentials_are_taken_out_of_any_text(name, password):
    secret = f"hunter{password}2"
    assert secret not in without_credentials(f"mqtt://{name}:{secret}@host:1")
    assert re.fullmatch(r"mqtt://…@host:1", without_credentials(f"mqtt://{name}:{secret}@host:1"), re.DOTALL)
