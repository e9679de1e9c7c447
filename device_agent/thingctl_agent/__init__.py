"""The device's side of thingctl: register functions, answer commands.

>>> from thingctl_agent import Agent
>>> agent = Agent()
>>> @agent.action
... def setTemperature(value: float) -> dict[str, float]:
...     return {"currentTemperature": value}
"""

from thingctl_agent.agent import Agent
from thingctl_agent.errors import (
    AgentError,
    Canceled,
    CommandFailed,
    ConfigError,
    JournalError,
    RegistrationError,
    Reject,
)
from thingctl_agent.handlers.context import Completed, Context

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
