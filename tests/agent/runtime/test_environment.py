"""What the programs that handlers run do not find in their environment."""

from __future__ import annotations

import pytest

from thingctl_agent.runtime.environment import take_out


@pytest.mark.parametrize("name", ["THINGCTL_PASSWORD", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"])
def test_secrets_and_the_service_managers_variables_are_taken_out(name):
    environ = {name: "x", "HOME": "/"}
    take_out(environ)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("name", ["THINGCTL_URL", "THINGCTL_MQTT_URL"])
def test_a_url_is_taken_out_if_it_has_a_password(name):
    kept = {name: "mqtt://user@host:1883", "OTHER": "mqtt://user:secret@host"}
    environ = dict(kept)
    take_out(environ)
    assert environ == kept
    environ[name] = "mqtts://user:secret@host"
    take_out(environ)
    assert name not in environ
