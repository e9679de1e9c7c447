"""Things: who is there, what they can do, and what was asked of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from thingctl_broker.cli.bundles import bundle_text


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
    form = page.get_by_role("form", name="Add a thing")
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
    expect(page.locator("dialog")).to_have_count(0)
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


@pytest.fixture
def pump(api):
    """A thing that was added, and never connected."""
    assert api.call("PUT", "thing-types/pump", {"actions": [{"name": "prime"}]})[0] in {200, 201}
    body = {"name": "pump-1", "type": "pump", "tags": ["cellar", "wet", "old"], "description": "Pumps"}
    assert api.call("POST", "things", body)[0] == 201
    yield "pump-1"
    api.call("DELETE", "things/pump-1")


def test_a_thing_is_edited_disabled_and_enabled(look, api, pump):
    page = look(f"#/things/{pump}")
    about = page.get_by_role("region", name="About")
    about.get_by_role("button", name="Edit").click()
    form = page.get_by_role("form", name=f"Edit {pump}")
    expect(form.get_by_label("Type")).to_have_value("pump")
    expect(form.get_by_label("Tags")).to_have_value("cellar, old, wet")
    form.get_by_label("Tags").fill("not a tag")
    page.keyboard.press("Enter")
    expect(form.get_by_role("alert")).to_be_visible()
    expect(form.get_by_label("Tags")).to_be_focused()
    form.get_by_label("Tags").fill("attic")
    form.get_by_label("Type").fill("")
    form.get_by_label("Description").fill("Rests")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(about).to_contain_text("attic")
    changed = api.thing(pump)
    assert (changed["tags"], changed["description"], "type" in changed) == (["attic"], "Rests", False)

    about.get_by_role("button", name="Disable").click()
    page.keyboard.press("Escape")
    expect(about.get_by_role("button", name="Disable")).to_be_focused()
    assert api.thing(pump)["enabled"] is True
    about.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(about).to_contain_text("Disabled")
    about.get_by_role("button", name="Enable").click()
    expect(about.get_by_role("button", name="Disable")).to_be_visible()
    assert api.thing(pump)["enabled"] is True


def test_a_new_password_comes_as_the_bundle_of_the_broker(look, api, pump):
    page = look(f"#/things/{pump}")
    page.get_by_role("button", name="New password").click()
    ask = page.get_by_role("dialog", name=f"A new password for {pump}?")
    with page.expect_response("**/password") as answer:
        ask.get_by_role("button", name="Make a new password").click()
    dialog = page.get_by_role("dialog", name=f"A new password for {pump}")
    with page.expect_download() as download:
        dialog.get_by_role("button", name=f"Download {pump}.bundle").click()
    assert Path(download.value.path()).read_text("utf-8") == bundle_text(answer.value.json())
    expect(dialog).to_contain_text(f"sudo thingctl-agent install --bundle {pump}.bundle")
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_role("button", name="New password")).to_be_focused()
    expect(page.locator("dialog")).to_have_count(0)
    assert answer.value.json()["credentials"]["password"] not in page.content()


def test_a_broker_that_makes_no_bundle_says_why(look, pump):
    page = look(f"#/things/{pump}")

    def without_bundle(route):
        told = route.fetch().json()
        del told["bundle"]
        route.fulfill(json=told | {"bundleFault": "set mqtt.public_url"})

    page.route("**/password", without_bundle)
    page.get_by_role("button", name="New password").click()
    page.get_by_role("button", name="Make a new password").click()
    dialog = page.get_by_role("dialog", name=f"A new password for {pump}")
    expect(dialog).to_contain_text("The broker made no bundle: set mqtt.public_url")
    expect(dialog.get_by_role("button", name="Copy the password")).to_be_visible()
    expect(dialog.get_by_role("button", name=re.compile("Download"))).to_have_count(0)


def test_a_thing_is_removed_after_a_question(look, api, pump):
    page = look(f"#/things/{pump}")
    page.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog", name=f"Remove {pump}?")
    expect(dialog.get_by_role("button", name="Keep as it is")).to_be_focused()
    dialog.get_by_role("button", name="Remove").click()
    expect(page).to_have_url(re.compile("#/things$"))
    expect(row_of(page, pump)).to_have_count(0)
    assert api.thing(pump) is None


CUT = """() => [...document.querySelectorAll(".canvas .td.c-agent, .canvas .td.c-type, .canvas .td.c-tags")]
  .filter((cell) => cell.scrollWidth > cell.clientWidth).map((cell) => cell.textContent)"""


def test_version_type_tags_and_number_of_actions_are_seen_at_1280(look, api, thermostat, pump):
    api.call("PATCH", f"things/{thermostat}", {"tags": ["harbour"]})
    page = look("#/things", viewport={"width": 1280, "height": 800})
    row = row_of(page, thermostat)
    expect(row.locator(".tag")).to_have_text(["harbour"])
    number = len(api.thing(thermostat)["actions"])
    expect(row.locator(".c-actions")).to_contain_text(str(number))
    expect(row_of(page, pump).locator(".c-tags")).to_have_text("cellarold +1")
    assert page.evaluate(CUT) == []
    api.call("PATCH", f"things/{thermostat}", {"tags": []})


def test_type_and_tag_narrow_the_list_and_it_is_sorted(look, api, thermostat, pump):
    page = look("#/things")
    page.get_by_role("combobox", name="Type").fill("pump")
    expect(page.locator(".canvas .tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("type=pump"))
    page.get_by_role("combobox", name="Tag").fill("dry")
    expect(page.get_by_role("heading", name="No thing fits")).to_be_visible()
    page.get_by_role("combobox", name="Tag").fill("wet")
    expect(row_of(page, pump)).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(row_of(page, thermostat)).to_be_visible()
    page.get_by_role("combobox", name="Sort by").select_option("Last seen, earliest first")
    expect(page.locator(".canvas .tr").first).to_contain_text("never")
    page.get_by_role("combobox", name="Sort by").select_option("Last seen, latest first")
    expect(page.locator(".canvas .tr").first).to_contain_text("connected")


def test_the_list_is_saved_as_csv(look, pump):
    page = look("#/things?type=pump")
    expect(row_of(page, pump)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text("utf-8").splitlines()))
    assert [(row["name"], row["type"], row["tags"]) for row in rows] == [(pump, "pump", "cellar old wet")]


def test_while_pages_load_the_foot_says_so(look, thermostat):
    page = look("#/settings")
    held = []

    def first_of_two(route):
        if "cursor=" in route.request.url:
            held.append(route)
            return
        told = route.fetch().json()
        route.fulfill(json=told | {"nextCursor": "zzzz"})

    page.route("**/api/v1/things?*", first_of_two)
    page.get_by_role("link", name="Things", exact=True).click()
    expect(page.locator(".list-foot")).to_have_text(re.compile(r"^\d+ things? so far, loading…$"))
    held.pop().fulfill(json={"things": [], "nextCursor": None})
    expect(page.locator(".list-foot")).to_have_text(re.compile("online$"))
    page.unroute_all(behavior="ignoreErrors")


def test_the_old_password_may_end_now(look, api, pump):
    page = look(f"#/things/{pump}")
    about = page.get_by_role("region", name="About")
    for ends in (False, True):
        page.get_by_role("button", name="New password").click()
        ask = page.get_by_role("dialog", name=f"A new password for {pump}?")
        ask.get_by_label("End the old password now.").set_checked(ends)
        with page.expect_request("**/password") as request:
            ask.get_by_role("button", name="Make a new password").click()
        assert request.value.post_data_json == ({"oldValidFor": 0} if ends else {})
        page.get_by_role("dialog").get_by_role("button", name="Done").click()
        expect(about.get_by_text("valid until the device signs in")).to_have_count(0 if ends else 1)
    assert "oldPassword" not in api.thing(pump)


def test_two_devices_with_one_name_are_told_of(look, api, device):
    first = device("twice-lamp")
    second = device("twice-lamp")
    page = look(f"#/things/{first.name}")
    expect(page.get_by_role("region", name="About")).to_contain_text(
        re.compile(r"Another client took its session \d+ times?: is another device using this name\?")
    )
    second.close()


def test_a_choice_that_there_is_not_filters_nothing(look, thermostat):
    page = look("#/things?online=perhaps&sort=constructor")
    expect(row_of(page, thermostat)).to_be_visible()
    expect(page.get_by_role("combobox", name="Presence")).to_have_value("")
    expect(page.get_by_role("button", name="Clear filters")).to_be_hidden()
