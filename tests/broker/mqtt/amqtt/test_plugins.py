"""Plugins that the settings name: loaded, or refused in one sentence that says whose fault it is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from amqtt.errors import PluginInitError, PluginLoadError
from amqtt.plugins.base import BasePlugin

from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.amqtt.plugins import check_plugins, explain

OURS = "thingctl_broker.mqtt.plugin.CommandsPlugin"


class Optioned(BasePlugin):
    @dataclass
    class Config(BasePlugin.Config):
        file: str
        level: int = 3


class Plain(BasePlugin):
    """Without a Config of its own."""


class Undecided(BasePlugin):
    class Config: ...


class NoPlugin: ...


def test_what_amqtt_can_load_passes():
    check_plugins(
        {
            f"{__name__}.Optioned": {"file": "a"},
            f"{__name__}.Plain": {},
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": "passwords"},
        },
        OURS,
    )


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        ({OURS: {}}, "thingctl serve loads it itself"),
        ({"no.such.module.Plugin": {}}, "no.such.module.Plugin cannot be imported: No module named 'no'"),
        ({f"{__name__}.Missing": {}}, "Missing cannot be imported"),
        ({f"{__name__}.NoPlugin": {}}, "does not derive from BasePlugin"),
        ({f"{__name__}.OURS": {}}, "does not derive from BasePlugin"),
        ({f"{__name__}.Optioned": {"flie": 1}}, "no option 'flie': its options are file, level"),
        ({f"{__name__}.Optioned": {}}, 'Optioned: missing value for field "file"'),
        ({f"{__name__}.Optioned": {"file": 1}}, 'Optioned: wrong value type for field "file"'),
        ({f"{__name__}.Undecided": {}}, "its Config is no dataclass"),
        ({f"{__name__}.Plain": {"a": 1}}, "no option 'a': it has no options"),
        ({"shop": {"audit": {"Logger": {"level": 3}}}}, r'\[amqtt.plugins."shop.audit.Logger"\]'),
        ({"Logger": {}}, r'names no class of a module: .*"module.Class"'),
    ],
)
def test_what_it_cannot_load_is_refused(plugins, sentence):
    with pytest.raises(ConfigurationError, match=f"^amqtt.plugins: .*{sentence}"):
        check_plugins(plugins, OURS)


def test_amqtts_errors_say_what_and_why():
    error = PluginInitError(Optioned)
    error.__cause__ = OSError("no such file")
    assert str(explain(error)).startswith("amqtt.plugins: Plugin init failed: ")
    assert str(explain(error)).endswith(".Optioned'>: OSError('no such file')")
    assert str(explain(PluginLoadError("Plugin p is odd"))) == "amqtt.plugins: Plugin p is odd"


def test_our_own_errors_stay_as_they_are():
    error = PluginInitError(Plain)
    error.__cause__ = ConfigurationError("the port is taken")
    assert str(explain(error)) == "the port is taken"
