"""Actions that the agent brings along. Each is off until the settings enable it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingctl_agent.agent import Agent


def enable(agent: Agent, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Register what ``[actions.NAME]`` asks for."""
    del agent, settings
