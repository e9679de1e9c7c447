"""A thermostat: the smallest useful agent.

thingctl-agent run examples/thermostat.py --thing thermostat-001 --url mqtt://127.0.0.1:1883
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from thingctl_agent import Agent, Context, Reject

agent = Agent()

Celsius = Annotated[float, Meta(ge=5, le=30, description="degrees Celsius")]


class Reading(TypedDict):
    """What the thermostat shows."""

    currentTemperature: float


class Thermostat:
    """The device itself, pretended."""

    def __init__(self) -> None:
        self.temperature = 21.0
        self.locked = False


thermostat = Thermostat()


@agent.action
def setTemperature(value: Celsius) -> Reading:  # noqa: N802 - the name that operators know
    """Set the temperature to keep."""
    if thermostat.locked:
        raise Reject("LOCKED", "the child lock is on")
    thermostat.temperature = value
    return {"currentTemperature": thermostat.temperature}


@agent.action(durable=False)
def getTemperature() -> Reading:  # noqa: N802
    """Read the temperature. Nothing changes, so nothing needs to be remembered."""
    return {"currentTemperature": thermostat.temperature}


@agent.action
def setChildLock(on: bool) -> None:  # noqa: N802
    """Lock or unlock the buttons, and setTemperature with them."""
    thermostat.locked = on


@agent.action(timeout=60)
def calibrate(ctx: Context, seconds: Annotated[int, Meta(ge=1, le=30)] = 5) -> Reading:
    """Run the valve from end to end, telling how far it has come."""
    for second in range(seconds):
        ctx.progress(100 * second / seconds, "moving the valve")
        ctx.sleep(1)  # ends at once when the command is canceled
    return {"currentTemperature": thermostat.temperature}


if __name__ == "__main__":
    agent.run()
