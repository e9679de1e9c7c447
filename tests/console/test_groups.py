"""Commands to many things: who would get one, how far it has come, and how it is held."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from support.waits import soon


@pytest.fixture
def lamps(device, api):
    """Three devices with a tag in common."""
    made = [device(f"group-lamp-{number}") for number in range(3)]
    for lamp in made:
        assert api.call("PATCH", f"things/{lamp.name}", {"tags": ["grouped"]})[0] == 200
    return made


def form_of(page):
    return page.get_by_role("form", name="Send command")


def request_of(lamp):
    soon(lambda: lamp.requests)
    return next(reversed(lamp.requests))


def test_a_group_is_asked_about_sent_to_and_followed_trouble_first(look, lamps):
    page = look("#/send")
    form = form_of(page)
    form.get_by_label("To", exact=True).select_option("All things with tags")
    form.get_by_role("button", name="Dry run").click()
    expect(form.get_by_role("alert")).to_contain_text("say which")
    form.get_by_label("Tags, with commas").fill("grouped")
    form.get_by_label("Action", exact=True).fill("blink")
    form.get_by_role("button", name="Dry run").click()
    expect(page.get_by_role("heading", name="3 things would get it")).to_be_visible()
    expect(page.locator(".names-list li")).to_have_text([lamp.name for lamp in lamps])
    assert not any(lamp.requests for lamp in lamps)

    form.get_by_role("button", name="Send command").click()
    dialog = page.get_by_role("dialog", name="Send blink to 3 things?")
    expect(dialog.get_by_role("button", name="Do not send")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(form.get_by_role("button", name="Send command")).to_be_focused()
    assert not any(lamp.requests for lamp in lamps)
    form.get_by_role("button", name="Send command").click()
    dialog.get_by_role("button", name="Send to 3 things").click()
    view = page.locator(".group-view")
    expect(page).to_have_url(re.compile("#/groups/"))
    expect(view.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "0")
    first, second, third = lamps
    first.respond(request_of(first), "SUCCEEDED")
    second.respond(request_of(second), "FAILED", statusReason={"reasonDescription": "<i>burnt</i> out"})
    expect(view.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "67")
    rows = view.get_by_role("region", name="Executions").locator("li")
    expect(rows.first).to_contain_text("Failed")
    expect(rows.first).to_contain_text("<i>burnt</i> out")
    third.respond(request_of(third), "SUCCEEDED")
    expect(view.get_by_role("status")).to_have_text("Ended everywhere")
    expect(view.locator(".outcomes li")).to_have_text(["2 succeeded", f"1 failed({second.name})"])

    view.get_by_role("link", name="See all").click()
    expect(page.locator(".canvas .tr")).to_have_count(3)
    expect(page).to_have_url(re.compile("command="))
    page.locator(".only a").click()
    expect(page.get_by_role("heading", name="Command to many things")).to_be_visible()
    expect(page.locator(".group-view").get_by_role("status")).to_have_text("Ended everywhere")


def test_a_rollout_is_paused_resumed_and_canceled(look, lamps):
    page = look("#/send?to=things&value=" + "%2C".join(lamp.name for lamp in lamps) + "&action=blink")
    form = form_of(page)
    form.get_by_text("Roll out step by step").click()
    form.get_by_label("In parallel").fill("1")
    form.get_by_role("button", name="Send command").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Step by step: 1 in parallel.")
    dialog.get_by_role("button", name="Send to 3 things").click()
    view = page.locator(".group-view")
    expect(view.locator(".legend")).to_contain_text("2 not sent yet")
    view.get_by_role("button", name="Pause").click()
    expect(view.get_by_role("status")).to_have_text("Paused")
    view.get_by_role("button", name="Resume").click()
    expect(view.get_by_role("status")).to_have_text("Sending")
    view.get_by_role("button", name="Cancel all").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel all").click()
    expect(view.get_by_role("status")).to_have_text("Canceled")
    expect(view.get_by_role("button", name="Cancel all")).to_have_count(0)


def test_groups_are_listed_and_narrowed_by_state(look, api, lamps):
    body = {"targets": {"tags": ["grouped"]}, "action": "dim", "rollout": {"batch": 1}}
    group = api.call("POST", "commands", body)[1]["commandId"]
    page = look("#/commands")
    page.get_by_role("link", name="Groups").click()
    listed = page.get_by_role("region", name="List of groups")
    entry = listed.locator("li", has=page.locator(f"a[href='#/groups/{group}']"))
    expect(entry).to_contain_text("3 things, 2 not sent yet")
    expect(entry).to_contain_text("Sending")
    page.get_by_label("State").select_option("Paused")
    expect(page).to_have_url(re.compile("state=PAUSED"))
    expect(page.get_by_role("heading", name="No group is in this state")).to_be_visible()
    assert api.call("POST", f"groups/{group}/pause")[0] == 200
    expect(entry).to_contain_text("Paused")
    entry.get_by_role("link", name="dim").click()
    expect(page.locator(".group-view")).to_contain_text("Paused")
    assert api.call("POST", f"groups/{group}/cancel")[0] == 200


def test_older_groups_come_when_asked_for(look, api, lamps):
    body = {"targets": {"things": [lamps[0].name]}, "action": "blink"}
    made = [api.call("POST", "commands", body)[1]["commandId"] for _ in range(51)]
    page = look("#/groups")
    expect(page.locator(".entries li")).to_have_count(50)
    page.get_by_role("button", name="Show older ones").click()
    expect(page.locator(f".entries a[href='#/groups/{made[0]}']")).to_be_visible()


def test_a_group_that_is_known_by_its_executions_only_says_so(look, api, lamps):
    command = api.send(lamps[0].name, "blink")["commandId"]
    page = look(f"#/groups/{command}")
    expect(page.locator(".group-state")).to_have_text("Only its executions are known")


def test_a_command_whose_answer_was_lost_is_sent_again_as_the_same(look, api, lamps):
    page = look("#/send?to=tags&value=grouped&action=blink")
    held = []

    def lose_the_first(route):
        if "dryRun" in route.request.post_data or held:
            route.continue_()
        else:
            held.append(route.fetch().json()["commandId"])
            route.abort()

    page.route("**/api/v1/commands", lose_the_first)
    for _ in range(2):
        form_of(page).get_by_role("button", name="Send command").click()
        page.get_by_role("dialog").get_by_role("button", name="Send to 3 things").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).to_have_url(re.compile(f"#/groups/{held[0]}"))
