"""Settings: the broker's health and one's own token, thing types, API tokens."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect


def test_the_broker_says_how_it_is_and_who_is_signed_in(look, broker):
    page = look()
    page.get_by_role("link", name="admin", exact=True).click()
    about = page.get_by_role("region", name="Broker")
    expect(about).to_contain_text("ready: it takes commands")
    expect(about).to_contain_text(f"{broker.http}/api/v1/")
    expect(page.get_by_role("region", name="Signed in")).to_contain_text("admin")
    expect(page.get_by_role("navigation", name="Settings").get_by_role("link")).to_have_text(
        ["Broker", "Thing types", "Tokens"]
    )


def test_what_the_broker_tells_of_enrolment_is_shown(look):
    page = look("#/things")
    told = {"mqttUrl": "mqtts://hub:8883", "topicRoot": "$iothub", "open": False, "bundleFault": "no name"}
    page.route("**/api/v1/enrolment", lambda route: route.fulfill(json=told))
    page.evaluate("location.hash = '#/settings'")
    about = page.get_by_role("region", name="Broker")
    for text in ("mqtts://hub:8883", "$iothub", "closed", "cannot be made: no name"):
        expect(about).to_contain_text(text)


def test_a_token_is_added_used_renewed_and_revoked(look, api):
    page = look("#/settings/tokens")
    page.get_by_role("button", name="Add token").click()
    form = page.get_by_role("form", name="Add a token")
    form.get_by_label("Name").fill("no spaces please")
    page.keyboard.press("Enter")
    expect(form.get_by_role("alert")).to_be_visible()
    form.get_by_label("Name").fill("dashboard")
    form.get_by_label("things:read").check()
    form.get_by_label("Only for these things").fill("lamp-*")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="dashboard is added")
    secret = dialog.get_by_label("Secret", exact=True).inner_text()
    assert secret.startswith("tctl_")
    dialog.get_by_role("button", name="Done").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert secret not in page.content()
    made = api.call("GET", "tokens/dashboard")[1]
    assert (made["scopes"], made["things"]) == (["commands:read", "things:read"], ["lamp-*"])

    page.get_by_role("button", name="New secret for dashboard").click()
    page.get_by_role("button", name="Make a new secret").click()
    dialog = page.get_by_role("dialog", name="The new secret of dashboard")
    assert dialog.get_by_label("Secret", exact=True).inner_text() not in {secret, ""}
    dialog.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Revoke dashboard").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Revoke dashboard")).to_be_focused()
    page.get_by_role("button", name="Revoke dashboard").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("button", name="Revoke dashboard")).to_have_count(0)
    assert api.call("GET", "tokens/dashboard")[0] == 404


def test_a_thing_type_is_added_edited_and_removed(look, api):
    page = look("#/settings/types")
    page.get_by_role("button", name="Add type").click()
    page.get_by_role("form", name="Add a thing type").get_by_label("Name").fill("valve")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/settings/types/valve$"))
    text = page.get_by_label("Description and actions, as JSON")
    assert json.loads(text.input_value()) == {"description": "", "actions": []}
    text.fill("{")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    text.fill('{"actions": [{"name": "open", "paramsSchema": {"type": "nonsense"}}]}')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("/actions/0/paramsSchema")
    text.fill('{"description": "Opens", "actions": [{"name": "open"}]}')
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#announcer")).to_have_text("Saved")
    assert api.call("GET", "thing-types/valve")[1]["description"] == "Opens"
    page.get_by_role("link", name="Thing types").click()
    row = page.locator(".entries li", has_text="valve")
    expect(row).to_contain_text("1 action")
    row.get_by_role("link", name="valve").click()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page).to_have_url(re.compile("#/settings/types$"))
    assert api.call("GET", "thing-types/valve")[0] == 404
