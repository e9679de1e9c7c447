"""The console of a worker: the same pages over another link."""

from __future__ import annotations

import sys

import pytest
from playwright.sync_api import expect

from console.devices import Api
from console.looking import Looking
from support.links import linked
from support.processes import ROOT, TOKEN, process
from support.waits import soon

THERMOSTAT = "thermostat-007"


@pytest.fixture(scope="module")
def worker(postgres, tmp_path_factory):
    with linked("cluster", tmp_path_factory.mktemp("worker"), postgres) as running:
        yield running


@pytest.fixture(scope="module")
def thermostat(worker, tmp_path_factory):
    api = Api(worker.serving.http, TOKEN)
    with process(
        sys.executable,
        ROOT / "examples" / "thermostat.py",
        THINGCTL_THING=THERMOSTAT,
        THINGCTL_MQTT_URL=f"mqtt://127.0.0.1:{worker.mqtt_address[1]}",
        THINGCTL_TOPIC_ROOT=worker.root,
        THINGCTL_PRESENCE="on",
        THINGCTL_STATE_DIR=str(tmp_path_factory.mktemp("thermostat")),
    ):
        soon(lambda: (api.thing(THERMOSTAT) or {}).get("online"), 30.0)
        yield THERMOSTAT


@pytest.fixture
def look(browser, worker):
    looking = Looking(browser, worker.serving.http, TOKEN)
    yield looking
    looking.close()


def test_a_command_is_sent_followed_and_listed(look, thermostat):
    page = look("#/send")
    page.get_by_label("Thing", exact=True).fill(thermostat)
    form = page.get_by_role("form", name="Send command")
    expect(form).to_contain_text("Online")
    form.get_by_text("setTemperature").first.click()
    page.get_by_label("value").fill("24")
    form.get_by_role("button", name="Send command").click()
    expect(page.locator(".result .status").first).to_have_text("Succeeded")
    things = look("#/things")
    expect(things.get_by_text(thermostat).first).to_be_visible()
    overview = look()
    expect(overview.locator(".tile").first).to_be_visible()


def test_the_clients_are_those_of_the_cluster(look, thermostat):
    for place in ("#/clients", f"#/clients/{thermostat}"):
        page = look(place)
        expect(page.get_by_role("heading", name="The MQTT cluster has the clients")).to_be_visible()


def test_what_happens_shows_without_a_reload(look, worker, thermostat):
    page = look("#/commands")
    expect(
        page.get_by_role("status", name="Changes show up as they happen.").or_(page.get_by_text("Live")).first
    ).to_be_visible()
    execution = Api(worker.serving.http, TOKEN).send(thermostat, "getTemperature")
    row = page.get_by_role("row").filter(has_text=execution["executionId"][-12:])
    expect(row).to_contain_text("Succeeded")
