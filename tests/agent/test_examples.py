"""Each example loads, serves and is tested as its readers would test their own; the docs are true."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from agent.harness import ROOT
from thingctl_agent import Agent
from thingctl_agent.handlers.policy import Policy
from thingctl_agent.setup.handler_loader import agents_in
from thingctl_agent.testing import Device

EXAMPLES = [
    p for p in sorted((ROOT / "examples").glob("*.py")) if "thingctl_agent import Agent" in p.read_text()
]


def test_there_are_some():
    assert {p.name for p in EXAMPLES} >= {"thermostat.py", "firmware.py", "kiosk.py"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_it_loads_and_describes_each_action(path):
    (agent,) = agents_in(str(path))
    assert all(action.description.description for action in agent.registry)


def test_the_thermostat():
    (agent,) = agents_in(str(ROOT / "examples" / "thermostat.py"))
    with Device(agent) as device:
        assert device.send("setTemperature", value=24).result == {"currentTemperature": 24}
        assert device.send("setTemperature", value=31).reason_code == "INVALID_PARAMS"
        device.send("setChildLock", on=True)
        assert device.send("setTemperature", value=20).reason_code == "LOCKED"
        assert device.send("getTemperature").result == {"currentTemperature": 24}


def test_the_kiosk():
    (agent,) = agents_in(str(ROOT / "examples" / "kiosk.py"))
    with Device(agent) as device:
        assert device.send("show", page="menu").result["page"] == "menu"
        assert device.send("show", page="../etc").reason_code == "INVALID_PARAMS"
        assert device.send("screen/brightness", percent=200).result["brightness"] == 100
        assert device.send("say", text="hello").result == "hello"


def test_the_tests_of_the_firmware_example_pass():
    spec = importlib.util.spec_from_file_location("test_firmware", ROOT / "examples" / "test_firmware.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 4
    for test in tests:
        test()


def test_the_documentation_names_every_policy_and_reason():
    text = (ROOT / "docs" / "agent.md").read_text()
    for option in Policy.__struct_fields__:
        assert f"| `{option}` |" in text
    source = (ROOT / "device_agent/thingctl_agent/core/outcome.py").read_text()
    for code in re.findall(r': Final = "([A-Z_]+)"', source):
        assert f"`{code}`" in text


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/agent.md"])
def test_the_first_handler_of_each_page_runs_when_it_is_pasted(page):
    space: dict[str, object] = {"__name__": "docs"}
    exec(blocks(page)[0], space)
    agent = space["agent"]
    assert isinstance(agent, Agent)
    assert agent.test("setTemperature", value=24).result == {"currentTemperature": 24}
    space["thermostat"]["locked"] = True
    assert agent.test("setTemperature", value=24).reason_code == "LOCKED"


def test_the_app_service_in_the_documentation_runs():
    (block,) = [block for block in blocks("docs/agent.md") if "app_service(" in block]
    space: dict[str, object] = {"__name__": "docs"}
    exec(block, space)
    (name,) = [action.name for action in space["agent"].registry]
    assert f"`{name}`" in (ROOT / "docs" / "agent.md").read_text()
    assert space["agent"].test(name, payload={"ping": "hi"}).result == {"answer": "HI"}


def test_the_test_in_the_documentation_passes(tmp_path, monkeypatch):
    first, *_, test = blocks("docs/agent.md")
    (tmp_path / "my_actions.py").write_text(first)
    (tmp_path / "test_my_actions.py").write_text(test)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout
