"""One execution: all that is known of it, and what can be done about it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from support.waits import soon


@pytest.fixture
def open_(look):
    def open_(execution):
        page = look(f"#/commands/{execution['executionId']}")
        return page, page.get_by_role("complementary", name="Execution")

    return open_


def test_what_was_asked_what_came_of_it_how_and_by_whom(open_, api, thermostat):
    execution = api.ended(api.send(thermostat, "setTemperature", {"value": 22.5})["executionId"])
    _, pane = open_(execution)
    expect(pane.get_by_role("heading", name="setTemperature")).to_be_visible()
    expect(pane.get_by_role("link", name=thermostat)).to_be_visible()
    expect(pane.locator(".status").first).to_have_text("Succeeded")
    expect(pane.locator('pre[data-name="params"]')).to_have_text('{"value":22.5}')
    expect(pane.locator('pre[data-name="result"]')).to_have_text('{"currentTemperature":22.5}')
    expect(pane.locator(".steps [aria-current=step]")).to_have_text("Started")
    events = pane.locator(".timeline li").evaluate_all("rows => rows.map((row) => row.dataset.event)")
    assert events == [event["event"] for event in execution["events"]]
    expect(pane.locator(".timeline")).to_contain_text("Published")
    expect(pane.locator(".facts")).to_contain_text("Sent by")
    expect(pane.locator(".facts")).to_contain_text("admin")
    expect(pane.locator(".facts")).to_contain_text(execution["executionId"])


def test_the_reason_stands_above_everything_else(open_, api, thermostat):
    execution = api.rejected(thermostat)
    _, pane = open_(execution)
    reason = pane.get_by_role("region", name="Reason")
    expect(reason).to_contain_text(execution["statusReason"]["reasonCode"])
    expect(reason).to_contain_text(execution["statusReason"]["reasonDescription"])


def test_progress_moves_while_it_runs_and_cancel_stops_it(open_, api, thermostat):
    execution = api.send(thermostat, "calibrate", {"seconds": 20})
    page, pane = open_(execution)
    bar = pane.get_by_role("progressbar")
    expect(bar).to_be_visible()
    expect(pane).to_contain_text("moving the valve")
    first = int(bar.get_attribute("aria-valuenow"))
    soon(lambda: page.evaluate("1") and int(bar.get_attribute("aria-valuenow")) > first)
    pane.get_by_role("button", name="Cancel", exact=True).click()
    expect(pane.locator(".status").first).to_have_text("Canceled")
    expect(pane.get_by_role("progressbar")).to_have_count(0)
    expect(pane.locator(".timeline")).to_contain_text("Cancel requested")
    expect(pane.get_by_role("button", name="Send again")).to_be_visible()


def test_what_never_left_is_sent_again_without_a_question(open_, api, device):
    lamp = device("absent-lamp")
    lamp.close()
    soon(lambda: not api.thing(lamp.name)["online"])
    execution = api.ended(api.send(lamp.name, "blink", {"times": 3}, ttl=1)["executionId"])
    assert execution["retrySafe"] is True
    page, pane = open_(execution)
    expect(pane).to_contain_text("safe to send it again")
    pane.get_by_role("button", name="Send again").click()
    expect(pane.locator(".status").first).to_have_text("Sent")
    expect(page).not_to_have_url(re.compile(execution["executionId"]))
    again, first = api.executions(thingId=lamp.name)
    assert first["executionId"] == execution["executionId"]
    assert (again["action"], again["params"], again["ttl"]) == ("blink", {"times": 3}, 1)


def test_what_may_have_run_is_asked_about_first_and_a_late_answer_is_told(open_, api, device):
    lamp = device("deaf-lamp")
    sent = api.send(lamp.name, "unlock", {"seconds": 1}, ttl=1)
    lamp.request(sent["executionId"])
    execution = api.ended(sent["executionId"])
    assert execution["retrySafe"] is False
    page, pane = open_(execution)
    expect(pane).to_contain_text("It may have run")

    again = pane.get_by_role("button", name="Send again")
    again.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("it may be done twice")
    dialog.get_by_role("button", name="Do not send").click()
    expect(dialog).to_be_hidden()
    assert len(api.executions(thingId=lamp.name)) == 1

    lamp.respond(sent["executionId"], "SUCCEEDED", result={"open": True})
    late = pane.get_by_role("region", name="Late response")
    expect(late).to_contain_text("Succeeded")
    expect(late).to_contain_text("The status stands")
    expect(late.locator("pre")).to_have_text('{"open":true}')
    expect(pane.locator(".status").first).to_have_text("Timed out")

    again.click()
    page.get_by_role("dialog").get_by_role("button", name="Send again").click()
    expect(page).not_to_have_url(re.compile(execution["executionId"]))
    soon(lambda: len(api.executions(thingId=lamp.name)) == 2)


def test_numbers_keep_every_digit(open_, api, device):
    lamp = device("exact-lamp")
    exact = '{"big":12345678901234567890,"small":0.10}'
    status, _ = api.call("GET", "commands")
    assert status == 200
    execution = api.send_raw(f'{{"thingId":"{lamp.name}","action":"count","params":{exact}}}')
    lamp.request(execution["executionId"])
    lamp.respond(execution["executionId"], "FAILED")
    page, pane = open_(execution)
    expect(pane.locator('pre[data-name="params"]')).to_contain_text("12345678901234567890")
    expect(pane.locator(".status").first).to_have_text("Failed")
    pane.get_by_role("button", name="Send again").click()
    soon(lambda: page.evaluate("1") and len(lamp.requests) == 2)
    assert [request["params"]["big"] for request in lamp.requests.values()] == [12345678901234567890] * 2


def test_edit_and_send_begins_with_what_was_sent(open_, api, thermostat):
    execution = api.ended(api.send(thermostat, "setTemperature", {"value": 18.5}, ttl=33)["executionId"])
    page, pane = open_(execution)
    pane.get_by_role("link", name="Edit and send").click()
    form = page.get_by_role("form", name="Send command")
    expect(form.get_by_label("Thing", exact=True)).to_have_value(thermostat)
    expect(form.get_by_label("Action", exact=True)).to_have_value("setTemperature")
    expect(form.get_by_label("value")).to_have_value("18.5")
    expect(form.get_by_label("TTL in seconds")).to_have_value("33")


def test_an_execution_that_is_not_there(open_):
    _, pane = open_({"executionId": "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f"})
    expect(pane.get_by_role("heading", name="There is no such execution")).to_be_visible()


def test_a_field_of_a_newer_broker_stands_among_the_facts(look, api, thermostat):
    execution = api.ended(api.send(thermostat, "setTemperature", {"value": 22.5})["executionId"])
    page = look("#/things")

    def newer(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"runWindow": "at night"})

    page.route(re.compile(f"/{execution['executionId']}$"), newer)
    page.evaluate("hash => { location.hash = hash; }", f"#/commands/{execution['executionId']}")
    facts = page.get_by_role("complementary", name="Execution").locator(".facts")
    expect(facts).to_contain_text("Run window")
    expect(facts).to_contain_text('"at night"')
    expect(facts).not_to_contain_text("Started at")
