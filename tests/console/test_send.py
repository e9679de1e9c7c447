"""Sending a command: three clicks, a form made from the schema, and the result in place."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from support.waits import soon

RICH = {
    "agentVersion": "9.1",
    "actions": [
        {
            "name": "configure",
            "description": "Everything that a form can hold.",
            "paramsSchema": {
                "type": "object",
                "required": ["mode", "level", "name", "zone", "steps"],
                "properties": {
                    "mode": {"enum": ["eco", "comfort", 7]},
                    "level": {"type": "integer", "minimum": 1, "maximum": 5},
                    "ratio": {"type": "number", "exclusiveMinimum": 0},
                    "name": {"type": "string", "minLength": 2},
                    "loud": {"type": "boolean", "default": False},
                    "zone": {"$ref": "#/$defs/Zone"},
                    "steps": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                    "extra": {"description": "anything"},
                },
                "$defs": {
                    "Zone": {
                        "type": "object",
                        "required": ["floor"],
                        "properties": {"floor": {"type": "integer"}, "room": {"type": "string"}},
                    }
                },
            },
        },
        {"name": "ping"},
    ],
}


@pytest.fixture
def gadget(device, api):
    made = device("gadget", RICH)
    soon(lambda: "actions" in api.thing(made.name))
    return made


def form_of(page):
    return page.get_by_role("form", name="Send command")


def sent(page):
    """The one command that a page sends, once it has."""
    return page.expect_request(lambda request: request.method == "POST")


def test_three_clicks_from_a_thing_to_a_command(look, api, thermostat):
    page = look(f"#/things/{thermostat}")
    page.get_by_role("link", name="Send getTemperature").click()
    expect(form_of(page).get_by_label("Thing", exact=True)).to_have_value(thermostat)
    expect(page.get_by_text("This action takes no parameters.")).to_be_visible()
    page.get_by_role("button", name="Send command").click()
    result = page.get_by_role("region", name="Result").first
    expect(result.locator(".status").first).to_have_text("Succeeded")
    expect(result.locator('pre[data-name="result"]')).to_contain_text("currentTemperature")


def test_the_form_comes_from_what_the_thing_announced(look, thermostat):
    page = look("#/send")
    page.get_by_label("Thing", exact=True).fill(thermostat)
    choice = page.get_by_role("button", name="setTemperature")
    expect(choice).to_be_visible()
    expect(form_of(page)).to_contain_text("Online")
    choice.click()
    expect(page.get_by_text("Set the temperature to keep.")).to_be_visible()
    value = page.get_by_label("value")
    expect(page.get_by_text("5 to 30")).to_be_visible()
    value.fill("31")
    page.get_by_role("button", name="Send command").click()
    expect(page.get_by_role("alert").filter(has_text="value must be at most 30")).to_be_visible()
    expect(value).to_be_focused()
    expect(value).to_have_attribute("aria-invalid", "true")
    value.fill("23")
    page.get_by_label("TTL in seconds").fill("20")
    with sent(page) as request:
        page.get_by_role("button", name="Send command").click()
    assert request.value.post_data_json == {
        "thingId": thermostat,
        "action": "setTemperature",
        "params": {"value": 23},
        "ttl": 20,
    }
    expect(page.locator(".result .status").first).to_have_text("Succeeded")


def test_another_link_to_the_page_shows_another_form(look, thermostat):
    page = look(f"#/send?thing={thermostat}&action=setTemperature")
    form = form_of(page)
    expect(form.get_by_label("value")).to_be_visible()
    page.evaluate("hash => { location.hash = hash }", f"#/send?thing={thermostat}&action=calibrate")
    expect(form.get_by_label("seconds", exact=True)).to_have_value("5")
    expect(form.get_by_label("value")).to_have_count(0)
    page.evaluate("hash => { location.hash = hash }", "#/send?from=0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f")
    expect(form.get_by_role("alert")).to_contain_text("no execution")
    expect(form.get_by_label("Thing", exact=True)).to_have_value("")


def test_progress_shows_up_in_place(look, thermostat):
    page = look(f"#/send?thing={thermostat}&action=calibrate")
    expect(page.get_by_label("seconds", exact=True)).to_have_value("5")
    page.get_by_label("seconds", exact=True).fill("2")
    page.get_by_role("button", name="Send command").click()
    expect(page.locator(".result").get_by_role("progressbar")).to_be_visible()
    expect(page.locator(".result .status").first).to_have_text("Succeeded")


def test_enums_numbers_booleans_objects_and_arrays(look, gadget):
    page = look(f"#/send?thing={gadget.name}&action=configure")
    form = form_of(page)
    mode = form.get_by_label("mode")
    expect(mode.locator("option")).to_have_text(["Choose…", "eco", "comfort", "7"])
    mode.select_option("7")
    form.get_by_label("level").fill("3")
    form.get_by_label("ratio").fill("0.25")
    form.get_by_label("name").fill("hall")
    form.get_by_label("loud").check()
    zone = form.get_by_role("group", name="zone")
    zone.get_by_label("floor").fill("2")
    steps = form.get_by_role("group", name="steps")
    steps.get_by_role("textbox").fill("1")
    steps.get_by_role("button", name="Add").click()
    expect(steps.get_by_role("textbox")).to_have_count(2)
    expect(steps.get_by_role("textbox").nth(1)).to_be_focused()
    steps.get_by_role("textbox").nth(1).fill("2")
    steps.get_by_role("button", name="Add").click()
    steps.get_by_role("button", name="Remove").last.click()
    form.get_by_label("extra").fill('{"a": [null]}')
    with sent(page) as request:
        page.get_by_role("button", name="Send command").click()
    assert request.value.post_data_json["params"] == {
        "mode": 7,
        "level": 3,
        "ratio": 0.25,
        "name": "hall",
        "loud": True,
        "zone": {"floor": 2},
        "steps": [1, 2],
        "extra": {"a": [None]},
    }


FAULTS = [
    ("level", "2.5", "level must be a whole number"),
    ("level", "0", "level must be at least 1"),
    ("level", "", "level is needed"),
    ("ratio", "0", "ratio must be above 0"),
    ("ratio", "much", "ratio must be a number"),
    ("name", "x", "name must have at least 2 characters"),
    ("extra", "{", "extra is not JSON"),
]


def fill_in(form):
    form.get_by_label("mode").select_option("eco")
    form.get_by_label("level").fill("3")
    form.get_by_label("name").fill("hall")
    form.get_by_role("group", name="zone").get_by_label("floor").fill("1")
    form.get_by_role("group", name="steps").get_by_role("textbox").fill("1")


def test_what_does_not_fit_is_said_at_its_field(look, gadget):
    form = form_of(look(f"#/send?thing={gadget.name}&action=configure"))
    fill_in(form)
    for label, value, fault in FAULTS:
        field = form.get_by_label(label)
        before = field.input_value()
        field.fill(value)
        form.get_by_role("button", name="Send command").click()
        expect(form.get_by_role("alert")).to_contain_text(fault)
        expect(field).to_be_focused()
        field.fill(before)


def test_raw_json_is_the_way_out_and_back(look, gadget):
    page = look(f"#/send?thing={gadget.name}&action=configure")
    form = form_of(page)
    fill_in(form)
    form.get_by_role("button", name="Edit as JSON").click()
    raw = form.get_by_label("Parameters as JSON")
    assert json.loads(raw.input_value()) == {
        "mode": "eco",
        "level": 3,
        "name": "hall",
        "loud": False,
        "zone": {"floor": 1},
        "steps": [1],
    }
    raw.fill('{"mode": "comfort", "level": 4, "unheardOf": 1}')
    form.get_by_role("button", name="Back to the form").click()
    expect(form.get_by_label("level")).to_have_value("4")
    form.get_by_role("button", name="Edit as JSON").click()
    raw.fill("[1")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("not JSON")
    raw.fill("[1]")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("must be a JSON object")
    raw.fill('{"any": "thing"}')
    with sent(page) as request:
        form.get_by_role("button", name="Send command").click()
    assert request.value.post_data_json["params"] == {"any": "thing"}


def test_any_action_can_be_sent_to_a_thing_without_schemas(look, device):
    lamp = device("bare-lamp")
    page = look("#/send")
    form = form_of(page)
    form.get_by_label("Thing", exact=True).fill(lamp.name)
    form.get_by_label("Thing", exact=True).press("Tab")
    expect(form).to_contain_text("It announced no actions; any name may be sent.")
    form.get_by_label("Action", exact=True).fill("doAnything")
    form.get_by_label("Parameters as JSON").fill('{"now": true}')
    form.get_by_role("button", name="Send command").click()
    expect(page.locator(".result .status").first).to_have_text("Sent")
    soon(lambda: page.evaluate("1") and lamp.requests)
    (execution_id, request), *_ = lamp.requests.items()
    assert (request["action"], request["params"]) == ("doAnything", {"now": True})
    lamp.respond(execution_id, "SUCCEEDED", result="done")
    expect(page.locator(".result .status").first).to_have_text("Succeeded")


def test_what_the_broker_refuses_is_said_at_its_field(look, thermostat):
    page = look("#/send?thing=nobody-knows-it&action=x")
    form = form_of(page)
    expect(form).to_contain_text("No thing has this name yet.")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("nobody-knows-it")
    expect(form.get_by_label("Thing", exact=True)).to_be_focused()
    form.get_by_label("Thing", exact=True).fill(thermostat)
    form.get_by_label("TTL in seconds").fill("soon")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("whole number of seconds")
    form.get_by_label("TTL in seconds").fill("99999999")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("ttl must be from")
    expect(form.get_by_label("TTL in seconds")).to_be_focused()


SECONDS = '[data-pointer="/params/seconds"]'

TITLED = {
    "actions": [
        {
            "name": "water",
            "paramsSchema": {
                "type": "object",
                "required": ["zone", "seconds"],
                "properties": {
                    "zone": {"title": "Zone", "enum": ["beds", "lawn"]},
                    "seconds": {"type": "integer", "maximum": 60, "title": "How long"},
                },
            },
        },
        {"name": "flush"},
    ]
}


@pytest.fixture
def sprinklers(device, api):
    """Two devices with one announcement and one tag."""
    made = [device(f"sprinkler-{number}", TITLED) for number in range(2)]
    for one in made:
        soon(lambda name=one.name: "actions" in api.thing(name))
        assert api.call("PATCH", f"things/{one.name}", {"tags": ["garden"]})[0] == 200
    return made


def test_a_label_is_the_parameter_s_own_name(look, sprinklers):
    form = form_of(look("#/send?thing=sprinkler-0&action=water"))
    expect(form.locator(".params label")).to_have_text(["zone * (needed)", "seconds * (needed)"])
    expect(form.get_by_text("How long; at most 60")).to_be_visible()


def in_sight(page, locator):
    """Whether the whole of an element lies within the window."""
    box, size = locator.bounding_box(), page.viewport_size
    # Without a box it is not drawn yet.
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


def test_the_button_and_the_head_of_the_result_are_in_sight(look, sprinklers):
    page = look("#/send?to=tags&value=garden&action=water", viewport={"width": 1280, "height": 800})
    form = form_of(page)
    form.get_by_label("zone").select_option("beds")
    form.locator(SECONDS).fill("5")
    assert in_sight(page, form.get_by_role("button", name="Send command"))
    page.locator("main").evaluate("main => { main.scrollTop = main.scrollHeight }")
    form.get_by_role("button", name="Dry run").click()
    head = page.get_by_role("heading", name="2 things would get it")
    expect(head).to_be_visible()
    soon(lambda: in_sight(page, head))
    form.get_by_label("To", exact=True).select_option("One thing")
    form.get_by_label("Thing", exact=True).fill("sprinkler-0")
    form.get_by_role("button", name="flush").click()
    page.locator("main").evaluate("main => { main.scrollTop = main.scrollHeight }")
    form.get_by_role("button", name="Send command").click()
    head = page.locator(".result .details-head")
    expect(head).to_be_visible()
    soon(lambda: in_sight(page, head))


def test_many_things_share_a_form_and_only_their_actions_are_offered(look, sprinklers, thermostat, api):
    page = look("#/send?to=tags&value=garden")
    form = form_of(page)
    expect(form.locator(".choice")).to_have_text(["flush", "water"])
    form.get_by_role("button", name="water").click()
    form.get_by_label("zone").select_option("lawn")
    form.locator(SECONDS).fill("61")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("at most 60")
    form.get_by_role("button", name="Edit as JSON").click()
    form.get_by_label("Parameters as JSON").fill('{"zone": "lawn", "seconds": 99}')
    form.get_by_role("button", name="Dry run").click()
    result = page.get_by_role("region", name="Result")
    expect(result).to_contain_text("The broker would refuse it for 2 things")
    expect(result).to_contain_text("/params/seconds")
    form.get_by_role("button", name="Send command").click()
    expect(form.get_by_role("alert")).to_contain_text("refuse it for every one")
    assert not any(one.requests for one in sprinklers)
    form.get_by_label("To", exact=True).select_option("Several things")
    form.get_by_label("Names, with commas").fill(f"sprinkler-0, {thermostat}")
    page.keyboard.press("Tab")
    expect(form.locator(".choice", has_text="flush")).to_contain_text("1 of 2")


def test_the_form_is_kept_when_the_page_is_loaded_anew(look, sprinklers):
    page = look("#/send?thing=sprinkler-0")
    form = form_of(page)
    form.get_by_role("button", name="water").click()
    form.get_by_label("zone").select_option("lawn")
    form.locator(SECONDS).fill("7")
    form.get_by_label("TTL in seconds").fill("33")
    soon(lambda: '"ttl":"33"' in (page.evaluate("sessionStorage.getItem('thingctl.draft')") or ""))
    page.reload()
    expect(form.get_by_label("TTL in seconds")).to_have_value("33")
    expect(form.get_by_label("zone").locator("option:checked")).to_have_text("lawn")
    expect(form.locator(SECONDS)).to_have_value("7")
    page.evaluate("location.hash = '#/things'")
    page.get_by_role("link", name="Send", exact=True).click()
    expect(form.get_by_label("TTL in seconds")).to_have_value("")
