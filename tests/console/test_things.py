"""Things: who is there, what they can do, and what was asked of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import expect


def row_of(page, name):
    return page.locator(".canvas .tr", has=page.get_by_role("link", name=name, exact=True))


def test_the_list_shows_presence_and_follows_it(look, thermostat, device, api):
    lamp = device("coming-lamp")
    page = look("#/things")
    row = row_of(page, thermostat)
    expect(row).to_contain_text("Online")
    expect(row).to_contain_text("setTemperature")
    version = api.thing(thermostat)["announcement"]["agentVersion"]
    expect(row.locator(".c-agent")).to_have_text(re.split("[ /]", version)[-1])
    expect(row).to_contain_text("connected")
    expect(row_of(page, lamp.name)).to_contain_text("Online")
    lamp.close()
    expect(row_of(page, lamp.name)).to_contain_text("Offline", timeout=10_000)
    expect(row_of(page, lamp.name)).to_contain_text(re.compile("just now|s ago"))


def test_search_and_presence_narrow_the_list_and_live_in_the_url(look, thermostat, device):
    lamp = device("searched-lamp")
    page = look("#/things")
    expect(row_of(page, lamp.name)).to_be_visible()
    page.get_by_role("searchbox").fill("SETTEMP")
    expect(row_of(page, lamp.name)).to_have_count(0)
    expect(row_of(page, thermostat)).to_be_visible()
    expect(page).to_have_url(re.compile("q=SETTEMP"))
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.get_by_role("heading", name="No thing fits")).to_be_visible()
    page.get_by_role("button", name="Clear the search").click()
    expect(row_of(page, lamp.name)).to_be_visible()
    page.get_by_role("combobox", name="Presence").select_option("Offline")
    expect(row_of(page, lamp.name)).to_have_count(0)


def test_a_thing_is_added_and_its_bundle_downloaded(look, api, broker):
    types = {"description": "Heats", "actions": [{"name": "heat", "paramsSchema": {"type": "object"}}]}
    assert api.call("PUT", "thing-types/boiler", types)[0] == 201
    page = look("#/things")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Add thing").click()
    form = page.get_by_role("form", name="Add thing")
    expect(form.get_by_label("Name")).to_be_focused()
    form.get_by_label("Name").fill("no spaces please")
    page.keyboard.press("Enter")
    expect(form.get_by_role("alert")).to_be_visible()
    form.get_by_label("Name").fill("boiler-7")
    form.get_by_label("Type").fill("boiler")
    form.get_by_label("Tags").fill("cellar, old")
    form.get_by_label("Description").fill("<b>The</b> old one")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="boiler-7 is added")
    expect(dialog).to_contain_text(broker.mqtt)
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download boiler-7.bundle").click()
    told = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert download.value.suggested_filename == "boiler-7.bundle"
    assert (told["thing"], told["username"], told["url"]) == ("boiler-7", "boiler-7", broker.mqtt)
    assert len(told["password"]) >= 16
    dialog.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    line = "sudo thingctl-agent install --bundle boiler-7.bundle --handlers my_actions.py"
    assert page.evaluate("navigator.clipboard.readText()") == line
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert told["password"] not in page.content()

    row = row_of(page, "boiler-7")
    expect(row).to_contain_text("boiler")
    expect(row.locator(".tag")).to_have_text(["cellar", "old"])
    expect(row).to_contain_text("Offline")
    assert api.thing("boiler-7")["hasPassword"] is True
    row.get_by_role("link").click()
    about = page.get_by_role("region", name="About")
    expect(about).to_contain_text("<b>The</b> old one")
    page.get_by_role("link", name="Send command").click()
    expect(page.get_by_role("button", name="heat")).to_be_visible()

    assert api.call("PATCH", "things/boiler-7", {"enabled": False})[0] == 200
    page.go_back()
    expect(about).to_contain_text("Disabled")


def test_one_thing_with_its_actions_and_latest_commands(look, api, thermostat):
    execution = api.ended(api.send(thermostat, "getTemperature")["executionId"])
    page = look("#/things")
    row_of(page, thermostat).get_by_role("link").click()
    expect(page.get_by_role("heading", name=thermostat)).to_be_visible()
    about = page.get_by_role("region", name="About")
    for word in ("Online", "Last seen", "Agent version", "MQTT client id"):
        expect(about).to_contain_text(word)
    actions = page.get_by_role("region", name="Actions")
    expect(actions).to_contain_text("Run the valve from end to end")
    actions.get_by_text("Schema").first.click()
    expect(actions.locator("pre").first).to_be_visible()
    latest = page.get_by_role("region", name="Latest commands")
    expect(latest.get_by_role("link", name="getTemperature").first).to_have_attribute(
        "href", re.compile(execution["executionId"])
    )
    new = api.ended(api.send(thermostat, "setChildLock", {"on": False})["executionId"])
    expect(latest.locator("li").first).to_contain_text("setChildLock")
    expect(latest.locator("li").first).to_contain_text("Succeeded")
    assert new["status"] == "SUCCEEDED"


def test_a_thing_that_is_not_there(look):
    page = look("#/things/nobody")
    expect(page.get_by_role("heading", name="No thing has this name")).to_be_visible()
