from thingctl_agent import Agent

agent = Agent()


@agent.action
def set(value: int) -> dict[str, int]:  # noqa: A001
    return {"value": value}
