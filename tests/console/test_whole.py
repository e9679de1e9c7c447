"""What holds for every page: text from devices, the keyboard, sizes and colours, and what goes wrong.

That no request leaves the origin and that the content security policy has nothing to stop is
looked at by every test of the console, at its end.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from console.axe import axe_source
from console.conftest import THERMOSTAT
from console.demo import TOKEN as DEMO_TOKEN
from console.demo import serving_demo
from console.devices import Api
from console.looking import Looking
from support.processes import TOKEN, serving
from support.waits import soon
from thingctl_broker.commands.execution import Execution
from thingctl_protocol.statuses import Status


@pytest.fixture(scope="module")
def places(api, thermostat):
    """Every page, with something on it."""
    running = api.send(thermostat, "calibrate", {"seconds": 30})
    ended = api.rejected(thermostat)
    many = {"targets": {"things": [thermostat]}, "action": "getTemperature"}
    group = api.call("POST", "commands", many)[1]["commandId"]
    assert api.call("PUT", "thing-types/heater", {"description": "Heats"})[0] in {200, 201}
    return {
        "sign in": None,
        "overview": "#/",
        "commands": "#/commands",
        "no commands": "#/commands?action=none",
        "details": f"#/commands/{ended['executionId']}",
        "running": f"#/commands/{running['executionId']}",
        "send": f"#/send?thing={thermostat}&action=setTemperature",
        "send to many": "#/send?to=tags&value=a&action=x",
        "group": f"#/groups/{group}",
        "groups": "#/groups",
        "one command": f"#/commands?command={group}",
        "things": "#/things",
        "some things": "#/things?type=thermostat&sort=seen",
        "thing": f"#/things/{thermostat}",
        "clients": "#/clients",
        "some clients": "#/clients?q=none&state=away",
        "client": f"#/clients/{thermostat}",
        "settings": "#/settings",
        "types": "#/settings/types",
        "type": "#/settings/types/heater",
        "tokens": "#/settings/tokens",
        "nowhere": "#/nowhere",
    }


def settled(page, place):
    """Wait until a page shows what it has to show."""
    if place is None:
        expect(page.get_by_label("API token")).to_be_visible()
        return
    expect(page.locator("main .page")).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)
    if re.match("#/commands/.", place):
        expect(page.locator(".details .facts")).to_be_visible()
    if place == "#/":
        expect(page.locator(".tile").first).to_be_visible()
        expect(page.locator(".trouble li").first).to_be_visible()
    if place.startswith("#/things/"):
        expect(page.locator(".actions-list")).to_be_visible()
    if place.startswith("#/clients"):
        expect(page.locator(".canvas .tr, .subscriptions li, .list-state .notice").first).to_be_visible()
    if place == "#/groups":
        expect(page.locator(".entries li").first).to_be_visible()
    if place.startswith("#/groups/"):
        expect(page.locator(".group-view .legend")).to_be_visible()
    if place.startswith("#/settings"):
        expect(page.locator("main .card").first).not_to_contain_text("loading…")
    if place.startswith("#/send?thing"):
        expect(page.locator(".choice").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_clean_by_axe(look, places, scheme, width):
    source = axe_source()
    context = look.context(signed_in=False, color_scheme=scheme, viewport={"width": width, "height": 850})
    page = context.new_page()
    for name, place in places.items():
        if page.url == "about:blank":
            page.goto(look.url)
        elif place == "#/":
            page.evaluate("token => sessionStorage.setItem('thingctl.token', token)", TOKEN)
            page.goto(f"{look.url}/{place}")
            page.reload()
        else:
            page.evaluate("place => { location.hash = place }", place)
        settled(page, place)
        page.evaluate(source)
        found = page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
            ".map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html.slice(0, 200)).join(' | ')}`)"
        )
        assert found == [], name


DIALOGS = {
    "#/things": ["Add thing"],
    f"#/things/{THERMOSTAT}": ["Edit", "Disable", "New password", "Remove"],
    f"#/clients/{THERMOSTAT}": ["End the connection", "End the session"],
    "#/settings/types": ["Add type"],
    "#/settings/tokens": ["Add token", "New secret for admin", "Revoke admin"],
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_dialog_is_clean_by_axe_closes_by_escape_and_gives_the_focus_back(look, places, scheme, width):
    source = axe_source()
    page = look("", color_scheme=scheme, viewport={"width": width, "height": 850})
    for place, buttons in DIALOGS.items():
        page.evaluate("place => { location.hash = place }", place)
        settled(page, place)
        for name in buttons:
            button = page.get_by_role("button", name=name, exact=True)
            button.click()
            expect(page.get_by_role("dialog")).to_be_visible()
            page.evaluate(source)
            found = page.evaluate("async () => (await axe.run('dialog')).violations.map((v) => v.help)")
            assert found == [], name
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
            expect(button).to_be_focused()


def test_every_page_fits_a_phone(look, places):
    page = look("", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for name, place in places.items():
        if place is None:
            continue
        page.evaluate("place => { location.hash = place }", place)
        settled(page, place)
        beyond = page.evaluate(
            "() => [document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
        )
        assert max(beyond) <= 360, name
        assert page.evaluate("document.querySelector('main').clientWidth") == 360, name


OVERLAPS = """() => {
  const shown = [...document.querySelectorAll("main h1, main button, main .button, main input, main select")]
    .filter((one) => one.checkVisibility() && !one.closest(".rows, .details-pane, .send-foot, .chip"))
    .map((one) => [one.textContent || one.name || one.id, one.getBoundingClientRect()])
    .filter(([, box]) => box.width > 1 && box.height > 1);
  const found = [];
  shown.forEach(([name, a], index) => shown.slice(index + 1).forEach(([other, b]) => {
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) found.push(`${name} / ${other}`);
  }));
  return found;
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_lies_over_anything_else(look, places, width):
    page = look("", viewport={"width": width, "height": 800})
    filtered = {
        "filtered commands": "#/commands?status=FAILED&since=1h&tag=a",
        "filtered things": "#/things?q=a&online=yes",
    }
    for name, place in (places | filtered).items():
        if place is None:
            continue
        page.evaluate("place => { location.hash = place }", place)
        settled(page, place)
        assert page.evaluate(OVERLAPS) == [], name
        assert page.evaluate("document.querySelector('main').scrollWidth") <= width, name


def test_a_phone_shows_the_list_then_the_details_then_the_list_again(look, api, thermostat):
    execution = api.ended(api.send(thermostat, "getTemperature")["executionId"])
    page = look("#/commands", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    row = page.locator(".canvas .tr", has=page.locator(f'a[title="{execution["executionId"]}"]'))
    expect(row.locator(".c-action")).to_be_visible()
    row.locator("a.main").tap(position={"x": 200, "y": 30})
    expect(page.get_by_role("complementary", name="Execution")).to_be_visible()
    expect(page.get_by_role("table", name="Commands")).to_be_hidden()
    page.get_by_role("button", name="Close").tap()
    expect(page.get_by_role("table", name="Commands")).to_be_visible()


def ground(page):
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def test_dark_and_light_follow_the_system_or_the_reader(look):
    assert ground(look(color_scheme="light")) == "rgb(246, 247, 249)"
    page = look(color_scheme="dark")
    expect(page.get_by_role("button", name="Colours: As the system")).to_be_visible()
    assert ground(page) == "rgb(14, 17, 22)"
    page.get_by_role("button", name="Colours: As the system").click()
    expect(page.get_by_role("button", name="Colours: Light")).to_be_visible()
    assert ground(page) == "rgb(246, 247, 249)"
    page.reload()
    expect(page.get_by_role("button", name="Colours: Light")).to_be_visible()
    assert ground(page) == "rgb(246, 247, 249)"


def test_a_command_can_be_sent_and_read_with_the_keyboard_alone(look, thermostat):
    page = look()
    expect(page.locator(".tile").first).to_be_visible()

    def tab_to(text):
        for _ in range(40):
            page.keyboard.press("Tab")
            name = page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
            if name.strip() == text:
                return
        raise AssertionError(f"Tab does not come to {text!r}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab_to("Send command")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Thing", exact=True)).to_be_focused()
    page.keyboard.type(thermostat)
    tab_to("getTemperature")
    page.keyboard.press("Space")
    tab_to("Send command")
    page.keyboard.press("Enter")
    expect(page.locator(".result .status").first).to_have_text("Succeeded")


HOSTILE = '<img src=x onerror="window.hacked=1"> {{7*7}} \u202egnp.exe\u202c \u0000\u2066\u200b\'"&amp;'
LONG = "long " + "x" * 100_000


def test_text_from_a_device_is_text(look, api, device):
    thing = device(
        "hostile",
        {
            "agentVersion": HOSTILE,
            "actions": [
                {
                    "name": "attack",
                    "description": HOSTILE,
                    "paramsSchema": {
                        "type": "object",
                        "title": HOSTILE,
                        "properties": {
                            HOSTILE: {"type": "string", "description": HOSTILE},
                            LONG: {"enum": [HOSTILE, "</option><script>window.hacked=1</script>"]},
                            "__proto__": {"type": "integer"},
                            "bad": {"$ref": "#/$defs/nowhere"},
                            "loop": {"$ref": "#/properties/loop"},
                        },
                    },
                }
            ],
        },
    )
    soon(lambda: "actions" in api.thing(thing.name))
    running = api.send(thing.name, "attack", {HOSTILE: HOSTILE})
    failed = api.send(thing.name, "attack")
    thing.request(failed["executionId"])
    progress = {"percent": 30, "message": HOSTILE.replace("\u0000", "")}
    thing.respond(running["executionId"], "IN_PROGRESS", progress=progress)
    reason = {"reasonCode": HOSTILE[:60], "reasonDescription": HOSTILE}
    thing.respond(failed["executionId"], "FAILED", result={HOSTILE: LONG}, statusReason=reason)
    api.ended(failed["executionId"])

    page = look(f"#/commands/{failed['executionId']}")
    for place in (
        f"#/commands/{failed['executionId']}",
        f"#/commands/{running['executionId']}",
        f"#/things/{thing.name}",
        "#/things",
        "#/",
        f"#/send?thing={thing.name}&action=attack",
        "#/commands?action=" + "%3Cimg%20src%3Dx%20onerror%3D1%3E",
    ):
        page.evaluate("place => { location.hash = place }", place)
        settled(page, place)
        if "%3Cimg" not in place:
            expect(page.get_by_text("<img src=x").first).to_be_attached()
        assert page.evaluate("[...document.querySelectorAll('img, script:not([src]), iframe')].length") == 0
        assert "\u202e" not in page.locator("body").inner_text(), "what turns text around is made to show"
        assert page.evaluate("document.documentElement.scrollWidth") <= 1360
    assert page.evaluate("window.hacked") is None
    page.evaluate("place => { location.hash = place }", f"#/commands/{failed['executionId']}")
    expect(page.get_by_role("region", name="Reason")).to_contain_text("\\u202egnp.exe")


def test_nothing_there_yet_says_what_to_do(look, browser):
    with serving_demo(behind=0.0) as demo:
        demo.clock.live = True
        empty = Looking(browser, demo.url, DEMO_TOKEN)
        page = empty("#/commands")
        expect(page.get_by_role("heading", name="No command has been sent yet")).to_be_visible()
        expect(page.get_by_role("link", name="Send the first command")).to_be_visible()
        page.evaluate("location.hash = '#/things'")
        expect(page.get_by_role("heading", name="There is no thing yet")).to_be_visible()
        expect(page.get_by_role("button", name="Add the first thing")).to_be_visible()
        assert "thingctl-agent run" not in page.locator("main").inner_text(), "a closed broker refuses that"
        page.evaluate("location.hash = '#/'")
        expect(page.get_by_role("heading", name="Nothing has gone wrong")).to_be_visible()
        steps = page.get_by_role("region", name="First steps")
        expect(steps).to_contain_text("sudo thingctl-agent install --bundle NAME.bundle")
        expect(steps.get_by_role("link", name="Send the first command")).to_have_attribute("href", "#/send")
        steps.get_by_role("button", name="Add thing").click()
        page.get_by_label("Name").fill("first-1")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Done").click()
        expect(steps).to_contain_text("A thing is there.")
        empty.close()


def test_a_broker_that_goes_and_comes_back(browser, tmp_path):
    with serving(tmp_path) as running:
        looking = Looking(browser, running.http, TOKEN)
        page = looking("#/commands")
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        port = running.http_address[1]
        running.process.terminate()
        running.process.wait(10)
    expect(page.get_by_role("alert")).to_contain_text("The broker cannot be reached")
    expect(page.get_by_text("Disconnected", exact=True)).to_be_visible()
    with serving(tmp_path, "--http", f"127.0.0.1:{port}") as running:
        page.get_by_role("button", name="Try now").click()
        expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=15_000)
        expect(page.get_by_role("alert")).to_have_count(0)
        assert Api(running.http, TOKEN).executions() == []
        looking.close()


def test_an_error_of_the_broker_says_so_and_can_be_tried_again(look):
    page = look()
    expect(page.locator(".tile").first).to_be_visible()
    problem = {"type": "urn:x", "title": "The broker failed", "status": 500, "detail": "it is on fire"}
    page.route("**/api/v1/commands?*", lambda route: route.fulfill(status=500, json=problem))
    page.get_by_role("link", name="Commands", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("it is on fire")
    page.unroute("**/api/v1/commands?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".canvas .tr").first).to_be_visible()


def test_what_a_token_may_not_see_says_so(look):
    page = look()
    expect(page.locator(".tile").first).to_be_visible()
    problem = {"type": "urn:x", "title": "Forbidden", "status": 403, "detail": "no"}
    page.route("**/api/v1/things?*", lambda route: route.fulfill(status=403, json=problem))
    page.get_by_role("link", name="Things", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("This token may not see that")


def test_a_hundred_thousand_executions_stay_smooth(browser):
    count = 100_000
    with serving_demo() as demo:

        def fill():
            service = demo.service
            for number in range(count):
                at = demo.clock.unix() - 3000 + number * 0.03
                made = Execution(
                    execution_id=service._ids.make(int(at * 1000), service._entropy(62)),
                    command_id="c",
                    thing=f"t-{number % 500}",
                    action="a",
                    params=b"{}",
                    ttl=60,
                    created_at=at,
                    deadline=0.0,
                    status=Status.SUCCEEDED,
                    ended_at=at + 0.01,
                )
                service.table.add(made)
            demo.clock.live = True

        demo.call(fill)
        looking = Looking(browser, demo.url, DEMO_TOKEN)
        page = looking("#/commands")
        expect(page.locator(".canvas .tr").first).to_be_visible()
        seen = page.evaluate(SCROLL, 12)
        assert seen["rows"] >= 12 * 200
        assert seen["drawn"] < 120, "only what is in sight exists"
        assert seen["median"] < 250, seen
        page.evaluate("location.hash = '#/commands?thing=t-7'")
        expect(page.get_by_text("200 commands, all that there are")).to_be_visible()
        looking.close()


SCROLL = """async (pages) => {
  const pane = document.querySelector(".rows");
  const loaded = () => Number(document.querySelector("[role=table]").getAttribute("aria-rowcount")) - 1;
  const times = [];
  for (let page = 0; page < pages; page += 1) {
    const before = loaded();
    const begun = performance.now();
    pane.scrollTop = pane.scrollHeight;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    times.push(performance.now() - begun);
    while (loaded() === before) await new Promise((done) => setTimeout(done, 5));
  }
  times.sort((a, b) => a - b);
  return {rows: loaded(), drawn: document.querySelectorAll(".canvas .tr").length,
          median: times[times.length >> 1], slowest: times.at(-1)};
}"""
