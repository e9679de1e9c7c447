"""App services: actions under the names that Microsoft Graph's AppService commands call them by.

Such a command names a package family and a service, and carries a payload. The broker asks
for the action ``{package}/{service}`` with the params ``{"payload": …}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thingctl_agent.errors import RegistrationError
from thingctl_agent.handlers import signature
from thingctl_protocol.identifiers import is_action_name

if TYPE_CHECKING:
    from collections.abc import Callable


def action_name(service: str, package: str) -> str:
    """The action that an app service is.

    >>> action_name("com.example.pingpong", "Example.PingPong_8wekyb3d8bbwe")
    'Example.PingPong_8wekyb3d8bbwe/com.example.pingpong'

    Raises :class:`RegistrationError` for names that no command can carry.
    """
    name = f"{package}/{service}"
    if name.count("/") != 1 or not (package and service and is_action_name(name)):
        raise RegistrationError(
            f"{name!r} cannot name an app service: package and service, of the characters "
            "A-Z a-z 0-9 : _ . - and 127 together"
        )
    return name


def check(function: Callable[..., Any], name: str) -> None:
    """Raise :class:`RegistrationError` unless the function takes a ``payload``."""
    try:
        parameters = signature.parameters(function)
    except TypeError:
        return  # registration says it better
    if "payload" not in parameters:
        raise RegistrationError(f"{name}: an app service has a parameter named payload")
