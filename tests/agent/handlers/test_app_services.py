"""App services: actions by the names that Graph's commands call them by."""

from __future__ import annotations

from typing import Any

import pytest

from thingctl_agent import Agent
from thingctl_agent.errors import RegistrationError
from thingctl_agent.handlers.context import Context
from thingctl_agent.testing import Device

PACKAGE = "5085ShawnHenry.RomanTestApp_jsjw7knzsgcce"
SERVICE = "com.microsoft.test.cdppingpongservice"


def test_a_service_gets_the_payload_and_its_return_value_goes_back():
    agent = Agent()

    @agent.app_service(SERVICE, package=PACKAGE, timeout=5)
    def pingpong(ctx: Context, payload: dict[str, str]) -> dict[str, str]:
        "Answers."
        return {"said": payload["Title"]}

    with Device(agent) as device:
        reply = device.send(f"{PACKAGE}/{SERVICE}", payload={"Type": "Toast", "Title": "Hello"})
        assert (reply.status, reply.result) == ("SUCCEEDED", {"said": "Hello"})
        reply = device.send(f"{PACKAGE}/{SERVICE}", payload={"Title": 1})
        assert (reply.status, reply.reason_code) == ("REJECTED", "INVALID_PARAMS")
    assert pingpong.__name__ == "pingpong"


@pytest.mark.parametrize(
    ("service", "package"),
    [("", "p"), ("s", ""), ("a/b", "p"), ("s", "a/b"), ("a b", "p"), ("s", "p" * 127)],
)
def test_names_that_no_command_can_carry(service, package):
    with pytest.raises(RegistrationError, match="app service"):
        Agent().app_service(service, package=package)


def test_a_function_without_payload_is_refused():
    def deaf(other: Any) -> None: ...

    with pytest.raises(RegistrationError, match="payload"):
        Agent().app_service("s", package="p")(deaf)


def test_what_is_no_function_is_refused_as_ever():
    with pytest.raises(RegistrationError):
        Agent().app_service("s", package="p")(print)


def test_a_service_is_registered_once():
    agent = Agent()

    def service(payload: Any) -> None: ...

    agent.app_service("s", package="p")(service)
    with pytest.raises(RegistrationError, match="already"):
        agent.app_service("s", package="p")(service)
