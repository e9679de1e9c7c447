"""Actions that the agent brings along. Each is off until the settings enable it.

``[actions.NAME]`` in the file enables one; what stands in the table are its options.
A module here is imported only when one of its actions is enabled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from thingctl_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingctl_agent.handlers.registry import Registry

MODULES: Final = {
    "ping": "ping",
    "getInfo": "info",
    "reboot": "reboot",
    "launchUri": "launch",
    "shell": "shell",
}
"""Where each action is. Its module has ``Options``, a struct, and ``register(registry, options)``."""


def enable(registry: Registry, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Register what is enabled; raises :class:`ConfigError` for an action or option there is not."""
    for name, options in settings.items():
        if name not in MODULES:
            known = ", ".join(MODULES)
            raise ConfigError(f"[actions.{name}]: there is no such built-in action; there are {known}")
        module = importlib.import_module(f"thingctl_agent.actions.{MODULES[name]}")
        try:
            checked = msgspec.convert(options, module.Options)
        except msgspec.ValidationError as error:
            raise ConfigError(f"[actions.{name}]: {error}") from None
        module.register(registry, checked)
