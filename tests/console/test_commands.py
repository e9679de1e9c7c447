"""The list of commands: what it shows, how it is narrowed down, and that it lives."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import expect

from support.processes import TOKEN
from support.waits import soon

ROWS = ".canvas .tr"


def row_of(page, execution):
    return page.locator(f'{ROWS}:has(a[title="{execution["executionId"]}"])')


@pytest.fixture(scope="module")
def sent(api, thermostat):
    """A few commands that have ended, in different ways."""
    executions = [
        api.send(thermostat, "setTemperature", {"value": 21}),
        api.send(thermostat, "getTemperature"),
    ]
    return [*(api.ended(execution["executionId"]) for execution in executions), api.rejected(thermostat)]


def test_the_table_shows_what_one_wants_to_know_of_each_command(look, sent, thermostat):
    page = look("#/commands")
    table = page.get_by_role("table", name="Commands")
    for name in ("Execution ID", "Thing", "Action", "Status", "Created", "Duration"):
        expect(table.get_by_role("columnheader", name=name)).to_be_visible()
    row = row_of(page, sent[0])
    expect(row).to_contain_text(sent[0]["executionId"][-12:])
    expect(row).to_contain_text(thermostat)
    expect(row).to_contain_text("setTemperature")
    expect(row).to_contain_text("Succeeded")
    assert re.search(r"\d\d:\d\d:\d\d", row.inner_text())
    assert re.search(r"\d m?s", row.locator(".c-duration").inner_text())
    expect(row_of(page, sent[2])).to_contain_text("Rejected")


def shown_actions(page):
    return set(page.locator(f"{ROWS} .c-action").all_inner_texts())


def test_filters_narrow_the_list_and_live_in_the_url(look, sent, device, api, thermostat):
    other = device("filtered-lamp")
    lamp = api.send(other.name, "turnOn")
    page = look("#/commands")
    expect(row_of(page, lamp)).to_be_visible()

    page.get_by_role("combobox", name="Action").fill("getTemperature")
    page.keyboard.press("Enter")
    expect(row_of(page, lamp)).to_have_count(0)
    expect(row_of(page, sent[1])).to_be_visible()
    assert shown_actions(page) == {"getTemperature"}
    expect(page).to_have_url(re.compile(r"#/commands\?action=getTemperature$"))

    page.get_by_role("button", name="Clear filters").click()
    expect(row_of(page, lamp)).to_be_visible()
    page.get_by_role("combobox", name="Thing").fill(other.name)
    page.keyboard.press("Enter")
    expect(row_of(page, sent[0])).to_have_count(0)
    expect(row_of(page, lamp)).to_be_visible()

    page.go_back()
    expect(row_of(page, sent[0])).to_be_visible()
    page.get_by_role("checkbox", name="Rejected").check()
    expect(row_of(page, sent[2])).to_be_visible()
    expect(row_of(page, sent[0])).to_have_count(0)
    expect(page).to_have_url(re.compile("status=REJECTED"))
    page.get_by_role("checkbox", name="Succeeded").check()
    expect(row_of(page, sent[0])).to_be_visible()
    expect(row_of(page, lamp)).to_have_count(0)


def test_a_link_to_a_filtered_list_shows_the_same(look, sent):
    page = look("#/commands?status=REJECTED%2CSUCCEEDED&action=setTemperature&since=1h")
    expect(row_of(page, sent[0])).to_be_visible()
    expect(page.get_by_role("checkbox", name="Rejected")).to_be_checked()
    expect(page.get_by_role("combobox", name="Action")).to_have_value("setTemperature")
    expect(page.get_by_role("combobox", name="Time")).to_have_value("1h")
    assert shown_actions(page) == {"setTemperature"}


def test_the_time_filter_takes_spans_and_moments(look, sent, api, thermostat):
    later = datetime.now(UTC)
    time.sleep(0.05)
    new = api.send(thermostat, "getTemperature")
    page = look(f"#/commands?to={later.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}")
    expect(row_of(page, sent[0])).to_be_visible()
    expect(row_of(page, new)).to_have_count(0)
    page = look(f"#/commands?from={later.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}")
    expect(row_of(page, new)).to_be_visible()
    expect(row_of(page, sent[0])).to_have_count(0)
    expect(page.get_by_label("From")).to_be_visible()


def test_a_filter_that_fits_nothing_says_what_to_do(look, sent):
    page = look("#/commands?action=noSuchAction")
    expect(page.get_by_role("heading", name="No command fits these filters")).to_be_visible()
    page.locator(".notice").get_by_role("button", name="Clear filters").click()
    expect(row_of(page, sent[0])).to_be_visible()


def test_new_commands_and_changes_come_in_by_themselves(look, device, api):
    lamp = device("live-lamp")
    page = look(f"#/commands?thing={lamp.name}")
    expect(page.get_by_role("heading", name="No command fits these filters")).to_be_visible()
    execution = api.send(lamp.name, "blink")
    expect(row_of(page, execution)).to_contain_text("Sent")
    lamp.request(execution["executionId"])
    lamp.respond(execution["executionId"], "IN_PROGRESS", progress={"percent": 40})
    expect(row_of(page, execution).get_by_role("progressbar")).to_have_attribute("aria-valuenow", "40")
    lamp.respond(execution["executionId"], "SUCCEEDED")
    expect(row_of(page, execution)).to_contain_text("Succeeded")


def test_a_command_that_no_longer_fits_the_filter_leaves_the_list(look, device, api):
    lamp = device("leaving-lamp")
    execution = api.send(lamp.name, "blink")
    page = look(f"#/commands?thing={lamp.name}&status=SENT")
    expect(row_of(page, execution)).to_be_visible()
    lamp.request(execution["executionId"])
    lamp.respond(execution["executionId"], "FAILED")
    expect(row_of(page, execution)).to_have_count(0)


def test_the_reader_does_not_lose_the_place_when_new_commands_come(look, device, api):
    lamp = device("busy-lamp")
    for _ in range(60):
        api.send(lamp.name, "blink")
    page = look(f"#/commands?thing={lamp.name}")
    expect(page.get_by_text("60 commands, all that there are")).to_be_visible()
    rows = page.locator(".rows")
    rows.evaluate("element => element.scrollTop = 900")
    first = page.locator(ROWS).filter(visible=True)
    expect(first.first).to_be_visible()
    soon(lambda: len(page.evaluate(TOPS)) > 8)  # drawn as far as the list reaches
    seen = page.evaluate(TOPS)
    for _ in range(3):
        api.send(lamp.name, "blink")
    newer = page.get_by_role("button", name="3 new commands")
    expect(newer).to_be_visible()
    assert page.evaluate(TOPS) == seen, "what was in sight stands where it stood"
    newer.click()
    expect(newer).to_be_hidden()
    assert rows.evaluate("element => element.scrollTop") == 0


TOPS = """() => {
  const pane = document.querySelector(".rows");
  const box = pane.getBoundingClientRect();
  return [...document.querySelectorAll(".canvas .tr")]
    .map((row) => [row.querySelector("a").title, Math.round(row.getBoundingClientRect().top)])
    .filter(([, top]) => top > box.top + 40 && top < box.bottom - 40)
    .sort();
}"""


def test_the_arrow_keys_go_from_row_to_row_and_enter_opens_one(look, sent):
    page = look("#/commands?thing=thermostat-001")
    expect(row_of(page, sent[0])).to_be_visible()
    page.locator(f"{ROWS} a.main").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    title = page.evaluate("document.activeElement.title")
    assert page.locator('.canvas [data-index="1"] a.main').get_attribute("title") == title
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"#/commands/{title}"))
    expect(page.get_by_role("complementary", name="Execution")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary", name="Execution")).to_be_hidden()
    expect(page.locator(f'a[title="{title}"]')).to_be_focused()


def test_slash_goes_to_the_filters(look, sent):
    page = look("#/commands?thing=thermostat-001")
    expect(row_of(page, sent[0])).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Thing")).to_be_focused()


def test_what_a_gap_in_the_stream_left_out_is_read_from_the_list(look, device, api):
    lamp = device("gap-lamp")
    page = look()
    expect(page.locator(".tile").first).to_be_visible()
    sent = []
    ready = 'event: ready\nid: before-5\ndata: {"at":"2026-01-01T00:00:00.000Z"}\n\n'

    def stream(route):
        if "last-event-id" not in route.request.headers:
            route.fulfill(status=200, content_type="text/event-stream", body=ready)
            return
        if not sent:
            sent.append(api.send(lamp.name, "blink"))
        route.continue_()

    page.route("**/api/v1/events*", stream)
    page.evaluate("hash => { location.hash = hash }", f"#/commands?thing={lamp.name}")
    soon(lambda: page.evaluate("1") and sent)
    expect(row_of(page, sent[0])).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")


def test_a_tag_narrows_the_list_and_what_comes_in(look, device, api):
    marked, other = device("marked-lamp"), device("unmarked-lamp")
    assert api.call("PATCH", f"things/{marked.name}", {"tags": ["marked"]})[0] == 200
    first = api.send(marked.name, "blink")
    api.send(other.name, "blink")
    page = look("#/commands")
    expect(row_of(page, first)).to_be_visible()
    page.get_by_role("combobox", name="Tag").fill("marked")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("tag=marked"))
    expect(page.locator(ROWS)).to_have_count(1)
    api.send(other.name, "blink")
    second = api.send(marked.name, "blink")
    expect(row_of(page, second)).to_be_visible()
    expect(page.locator(ROWS)).to_have_count(2)
    page.get_by_role("button", name="Clear filters").click()
    expect(page).to_have_url(re.compile("#/commands$"))


def test_an_execution_is_opened_by_its_id(look, sent):
    page = look("#/commands")
    page.get_by_role("searchbox", name="Execution ID").fill(sent[0]["executionId"])
    page.keyboard.press("Enter")
    pane = page.get_by_role("complementary", name="Execution")
    expect(pane).to_contain_text(sent[0]["executionId"])


def test_the_list_is_saved_as_csv_with_formulas_disarmed(look, device, api):
    lamp = device("exported-lamp")
    execution = api.send(lamp.name, "blink")
    lamp.request(execution["executionId"])
    lamp.respond(execution["executionId"], "FAILED", statusReason={"reasonDescription": '=1+"b", c'})
    api.ended(execution["executionId"])
    page = look(f"#/commands?thing={lamp.name}")
    expect(row_of(page, execution)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    (row,) = csv.DictReader(Path(download.value.path()).read_text("utf-8").splitlines())
    assert row["executionId"] == execution["executionId"]
    assert (row["action"], row["status"], row["reasonDescription"]) == ("blink", "FAILED", '\'=1+"b", c')


def test_a_command_is_copied_as_curl(look, broker, api, thermostat):
    execution = api.ended(api.send(thermostat, "setTemperature", {"value": 21})["executionId"])
    page = look(f"#/commands/{execution['executionId']}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    line = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(
        ["/bin/sh", "-c", line.replace("curl", "curl -s", 1)],
        env={"THINGCTL_TOKEN": TOKEN, "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
        timeout=20,
    )
    again = json.loads(done.stdout)
    assert (again["thingId"], again["params"]) == (thermostat, {"value": 21})


def test_the_list_is_readable_beside_the_details(look, api, thermostat):
    execution = api.ended(api.send(thermostat, "setTemperature", {"value": 20})["executionId"])
    page = look(f"#/commands/{execution['executionId']}", viewport={"width": 1280, "height": 800})
    expect(page.get_by_role("complementary", name="Execution").locator(".facts")).to_be_visible()
    row = row_of(page, execution)
    for cell in (".c-thing", ".c-action"):
        assert row.locator(cell).evaluate("cell => cell.scrollWidth <= cell.clientWidth"), cell
    expect(row.locator(".c-thing")).to_have_text("thermostat-001")
