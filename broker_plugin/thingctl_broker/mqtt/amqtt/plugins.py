"""Plugins of amqtt's that ``[amqtt.plugins]`` names for ``thingctl serve``: dotted class to options."""

from __future__ import annotations

import logging
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from amqtt.plugins.base import BasePlugin
from amqtt.utils import import_string
from dacite import Config, DaciteError, from_dict

from thingctl_broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def check_plugins(plugins: Mapping[str, Mapping[str, Any]], own: str) -> None:
    """Raise :class:`ConfigurationError` for a plugin that amqtt could not load.

    ``own``: the name of our plugin, which is there without being named.
    """
    for name, options in plugins.items():
        if name == own:
            raise ConfigurationError(f"amqtt.plugins: leave {name} out: thingctl serve loads it itself")
        _check_options(name, _found(name, options), options)


def let_log(plugins: Iterable[BasePlugin]) -> None:
    """Show what the plugins log at INFO. amqtt itself says too much at that level to be shown."""
    for plugin in plugins:
        logger = plugin.context.logger
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)


def explain(error: Exception) -> ConfigurationError:
    """Return amqtt's error, raised while it loaded plugins, as one of ours. Ours stays as it is."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigurationError):
        cause = cause.__cause__
    if cause is not None:
        return cause
    reason = "" if error.__cause__ is None else f": {error.__cause__!r}"
    return ConfigurationError(f"amqtt.plugins: {error}{reason}")


def _found(name: str, options: Mapping[str, Any]) -> type[Any]:
    if "." not in name:
        nested = f': write the whole name in quotes, as in [amqtt.plugins."{_dotted(name, options)}"]'
        raise ConfigurationError(f"amqtt.plugins: {name!r} names no class of a module{nested}")
    try:
        found = import_string(name)
    except Exception as error:  # whatever a module of the user's raises when it is imported
        raise ConfigurationError(f"amqtt.plugins: {name} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, BasePlugin)):
        raise ConfigurationError(f"amqtt.plugins: {name} is no plugin: it does not derive from BasePlugin")
    return found


def _dotted(name: str, options: Mapping[str, Any]) -> str:
    """The name that TOML has taken apart at its dots: a table in a table in a table.

    >>> _dotted("shop", {"audit": {"Logger": {"level": 3}}})
    'shop.audit.Logger'
    """
    parts = [name]
    while len(options) == 1:
        (key, inner), *_ = options.items()
        if not isinstance(inner, dict):
            break
        parts.append(key)
        options = inner
    return ".".join(parts) if len(parts) > 1 else "module.Class"


def _check_options(name: str, plugin: Any, options: Mapping[str, Any]) -> None:
    if not is_dataclass(plugin.Config):
        raise ConfigurationError(f"amqtt.plugins: {name} is no plugin: its Config is no dataclass")
    known = [field.name for field in fields(plugin.Config)]
    for option in options:
        if option not in known:
            those = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ConfigurationError(f"amqtt.plugins: {name} knows no option {option!r}: {those}")
    try:
        from_dict(cast("type[Any]", plugin.Config), options, Config(strict=True))
    except DaciteError as error:
        raise ConfigurationError(f"amqtt.plugins: {name}: {error}") from error
