"""The device's side of thingctl: register functions, answer commands.

>>> from thingctl_agent import Agent
>>> agent = Agent()
>>> @agent.action
... def setTemperature(value: float) -> dict[str, float]:
...     return {"currentTemperature": value}
"""

from thingctl_agent.runtime import lazy_imports

lazy_imports.import_without("msgspec", lazy_imports.UNUSED)

from thingctl_agent.agent import Agent  # noqa: E402 after msgspec
from thingctl_agent.errors import (  # noqa: E402
    AgentError,
    Canceled,
    CommandFailed,
    ConfigError,
    JournalError,
    RegistrationError,
    Reject,
)
from thingctl_agent.handlers.context import Completed, Context  # noqa: E402

__all__ = [
    "Agent",
    "AgentError",
    "Canceled",
    "CommandFailed",
    "Completed",
    "ConfigError",
    "Context",
    "JournalError",
    "RegistrationError",
    "Reject",
]
