"""A real broker, real devices, and Debian's chromium looking at them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from console.chromium import CHROMIUM, launched
from console.devices import Api, Device
from console.looking import Looking
from support.processes import ROOT, TOKEN, process, serving
from support.waits import soon

THERMOSTAT = "thermostat-001"


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.console)
            if not CHROMIUM.exists() and not os.environ.get("CI"):
                item.add_marker(
                    pytest.mark.skip(reason="chromium is not installed: apt-get install chromium")
                )


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """``thingctl serve``, for all tests of the console."""
    with serving(tmp_path_factory.mktemp("console")) as running:
        yield running


@pytest.fixture(scope="session")
def api(broker):
    """The broker's HTTP API, as another client uses it."""
    return Api(broker.http, TOKEN)


@pytest.fixture(scope="session")
def thermostat(broker, api, tmp_path_factory):
    """examples/thermostat.py, connected. Returns its name."""
    with process(
        sys.executable,
        ROOT / "examples" / "thermostat.py",
        THINGCTL_THING=THERMOSTAT,
        THINGCTL_MQTT_URL=broker.mqtt,
        THINGCTL_STATE_DIR=str(tmp_path_factory.mktemp("thermostat")),
    ):
        soon(lambda: "actions" in (api.thing(THERMOSTAT) or {}), 30.0)
        yield THERMOSTAT


@pytest.fixture
def device(broker, api):
    """Makes devices that answer only when they are told to: ``device(name, announcement=…)``."""
    made = []

    def make(name, announcement=None):
        made.append(Device(name, broker.mqtt_address, announcement))
        soon(lambda: (api.thing(name) or {}).get("online"))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def look(browser, broker):
    """Opens pages of the console: ``look("#/commands")``. What it saw amiss fails the test at its end."""
    looking = Looking(browser, broker.http, TOKEN)
    yield looking
    looking.close()
