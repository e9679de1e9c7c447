"""The first page: the last hour in figures and plots."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from support.waits import soon


def figure_of(page, name):
    return page.locator(".tile", has_text=name).locator(".figure")


def test_the_hour_in_figures_and_plots(look, api, thermostat):
    api.rejected(thermostat)
    for value in (20, 21):
        api.ended(api.send(thermostat, "setTemperature", {"value": value})["executionId"])
    _, seen = api.call("GET", "overview")
    page = look()
    expect(figure_of(page, "Things online")).to_have_text(str(seen["things"]["online"]))
    expect(figure_of(page, "Commands, last hour")).to_have_text(str(seen["hour"]["created"]))
    expect(figure_of(page, "Succeeded")).to_have_text(re.compile(r"\d+ %"))
    expect(figure_of(page, "Time to the verdict")).to_have_text(re.compile(r"\d m?s"))

    plots = page.get_by_role("figure")
    expect(plots).to_have_count(2)
    commands = plots.filter(has=page.get_by_role("heading", name="Commands per minute"))
    expect(commands.locator("svg rect.column[data-status=SUCCEEDED]").first).to_be_attached()
    expect(commands.locator("svg rect.column[data-status=REJECTED]").first).to_be_attached()
    commands.get_by_role("img").focus()
    page.keyboard.press("ArrowLeft")
    expect(commands.locator(".readout")).to_have_text(re.compile(r"^\d\d:\d\d: \d+ sent"))
    commands.get_by_text("As a table").click()
    expect(commands.get_by_role("columnheader", name="Succeeded")).to_be_visible()
    latency = plots.filter(has=page.get_by_role("heading", name="Time to the verdict"))
    for name in ("p50", "p95", "p99"):
        expect(latency.locator(f"svg path.{name}")).to_be_attached()


def test_it_goes_on_by_itself_and_trouble_shows_up(look, api, thermostat):
    page = look()
    figure = figure_of(page, "Commands, last hour")
    expect(figure).to_be_visible()
    before = int(figure.inner_text())
    execution = api.rejected(thermostat)
    trouble = page.get_by_role("region", name="Latest trouble").locator(".trouble li").first
    expect(trouble.get_by_role("link", name="setTemperature")).to_have_attribute(
        "href", re.compile(execution["executionId"])
    )
    expect(trouble).to_contain_text("Rejected")
    outcomes = page.get_by_role("list", name="Outcomes").get_by_role("listitem")
    expect(outcomes.filter(has_text="rejected").first).to_contain_text(thermostat)
    soon(lambda: page.evaluate("1") and int(figure.inner_text()) > before)
