"""Things: who is there, what they can do, and what was asked of them."""

from __future__ import annotations

import re

from playwright.sync_api import expect


def row_of(page, name):
    return page.locator(".canvas .tr", has=page.get_by_role("link", name=name, exact=True))


def test_the_list_shows_presence_and_follows_it(look, thermostat, device, api):
    lamp = device("coming-lamp")
    page = look("#/things")
    row = row_of(page, thermostat)
    expect(row).to_contain_text("Online")
    expect(row).to_contain_text("setTemperature")
    expect(row.locator(".c-agent")).to_have_text(api.thing(thermostat)["announcement"]["agentVersion"])
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


def test_types_and_tags_show_where_the_broker_has_them(look, thermostat):
    page = look()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    def with_more(route):
        answer = route.fetch()
        body = answer.json()
        body["things"][0] |= {"type": "thermostat", "tags": ["floor-2", "<b>bold</b>"]}
        route.fulfill(response=answer, json=body)

    page.route("**/api/v1/things?*", with_more)
    page.get_by_role("link", name="Things", exact=True).click()
    cell = page.locator(".canvas .c-type").first
    expect(cell).to_contain_text("thermostat")
    expect(cell.locator(".tag")).to_have_text(["floor-2", "<b>bold</b>"])


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
