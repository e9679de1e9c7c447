"""A kiosk: what a screen shows, driven from afar.

thingctl-agent run examples/kiosk.py --thing kiosk-7 --url mqtt://127.0.0.1:1883
"""

from __future__ import annotations

from typing import Literal

from thingctl_agent import Agent, Context

agent = Agent()
shown = {"page": "welcome", "brightness": 80}


@agent.action(exclusive="screen")
def show(page: Literal["welcome", "menu", "closed"]) -> dict[str, object]:
    """Show one of the pages there are; any other is refused before this is called."""
    shown["page"] = page
    return shown


@agent.action(name="screen/brightness", exclusive="screen", rate="10/min")
def set_brightness(percent: int) -> dict[str, object]:
    """Set the brightness. Its name as operators see it need not be the function's."""
    shown["brightness"] = max(0, min(100, percent))
    return shown


@agent.action(timeout=30, concurrency=2)
def say(ctx: Context, text: str) -> str:
    """Run a program; it is killed when the command is canceled or times out."""
    return ctx.run(["echo", text]).output.strip()


if __name__ == "__main__":
    agent.run()
