"""Signing in and out: a token in this tab's session storage, sent as a header, and nowhere else."""

from __future__ import annotations

from playwright.sync_api import expect

from support.processes import TOKEN


def test_a_token_opens_the_console_and_stays_in_this_tab(look):
    page = look("#/commands", signed_in=False)
    expect(page).to_have_title("Sign in · thingctl")
    field = page.get_by_label("API token")
    expect(field).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Enter a token")
    for wrong in ("tctl_wrong-but-possible", "tctl_tökén"):
        field.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("does not know this token")
    with page.expect_request("**/api/v1/me") as request:
        field.fill(f"  {TOKEN} ")
        page.keyboard.press("Enter")
    assert request.value.all_headers()["authorization"] == f"Bearer {TOKEN}"
    expect(page.get_by_role("heading", name="Commands")).to_be_visible()
    expect(page).to_have_title("Commands · thingctl")
    assert page.evaluate("Object.values(sessionStorage)") == [TOKEN]
    assert TOKEN not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert page.context.cookies() == []
    page.reload()
    expect(page.get_by_role("heading", name="Commands")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API token")).to_be_visible()
    assert page.evaluate("Object.values(sessionStorage)") == []
    page.reload()
    expect(page.get_by_label("API token")).to_be_visible()


def test_a_token_that_is_no_longer_good_leads_back_with_the_reason(look):
    page = look("#/things")
    expect(page.get_by_role("heading", name="Things")).to_be_visible()
    page.evaluate("sessionStorage.setItem('thingctl.token', 'tctl_revoked-meanwhile'); location.hash = '#/'")
    expect(page.get_by_role("alert")).to_have_text("The token is no longer valid.")
    page.get_by_label("API token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_broker_that_cannot_be_reached_is_not_taken_for_a_wrong_token(look):
    page = look(signed_in=False)
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_label("API token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("The broker cannot be reached")


def link(api):
    status, made = api.call("POST", "sign-in-codes")
    assert status == 201, made
    return f"#sign-in={made['code']}"


def test_a_link_signs_in_once_and_leaves_the_address(look, api):
    place = link(api)
    page = look(place, signed_in=False)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert "sign-in" not in page.evaluate("location.href")
    assert TOKEN not in page.evaluate("Object.values(sessionStorage)")
    page.go_back()
    assert "sign-in" not in page.evaluate("location.href")
    again = look(place, signed_in=False)
    expect(again.get_by_role("alert")).to_contain_text("This sign-in link was used or has expired")
    expect(again.get_by_label("API token")).to_be_focused()
    assert "sign-in" not in again.evaluate("location.href")
    assert again.evaluate("Object.values(sessionStorage)") == []


def test_a_link_in_a_tab_that_is_signed_in_begins_another_session(look, api):
    page = look("#/things")
    expect(page.get_by_role("heading", name="Things")).to_be_visible()
    page.evaluate("hash => { location.hash = hash }", link(api))
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert TOKEN not in page.evaluate("Object.values(sessionStorage)")
    assert "sign-in" not in page.evaluate("location.href")


def test_a_link_while_the_broker_is_away_says_so(look, api):
    page = look(signed_in=False)
    page.route("**/api/**", lambda route: route.abort())
    page.evaluate("hash => { location.hash = hash }", link(api))
    expect(page.get_by_role("alert")).to_contain_text("The broker cannot be reached")


def signed_in_as(look, api, name, place="", **token):
    """A page for a token of less than everything."""
    status, made = api.call("POST", "tokens", {"name": name, **token})
    assert status == 201, made
    page = look(place, signed_in=False)
    page.get_by_label("API token").fill(made["token"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    return page


def places_of(page):
    return page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()


def test_what_the_token_may_not_do_is_not_offered(look, api, thermostat):
    running = api.send(thermostat, "calibrate", {"seconds": 3})
    page = signed_in_as(look, api, "reader", scopes=["commands:read", "things:read"])
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert places_of(page) == ["Overview", "Commands", "Things", "Clients", "Settings"]
    expect(page.get_by_role("link", name="Send command")).to_have_count(0)
    page.evaluate("hash => { location.hash = hash }", f"#/commands/{running['executionId']}")
    pane = page.get_by_role("complementary", name="Execution")
    expect(pane.get_by_text("calibrate")).to_be_visible()
    expect(pane.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(pane.locator(".status").first).to_have_text("Succeeded")
    expect(pane.get_by_role("button", name="Send again")).to_have_count(0)
    page.evaluate("hash => { location.hash = hash }", f"#/things/{thermostat}")
    expect(page.get_by_role("region", name="Actions")).to_contain_text("calibrate")
    expect(page.get_by_role("link", name="Send calibrate")).to_have_count(0)
    page.get_by_role("link", name="Things", exact=True).first.click()
    expect(page.get_by_role("button", name="Add thing")).to_have_count(0)


def test_a_token_for_one_action_offers_that_one(look, api, thermostat):
    scopes = ["commands:read", "commands:send", "things:read"]
    page = signed_in_as(
        look, api, "limited", scopes=scopes, things=["thermo*-001"], actions=["get*ature", "reboot"]
    )
    expect(page.get_by_role("heading", name="Commands")).to_be_visible()
    assert places_of(page) == ["Commands", "Send", "Things", "Clients", "Settings"]
    page.evaluate("hash => { location.hash = hash }", f"#/send?thing={thermostat}")
    expect(page.locator(".choice")).to_have_text(["getTemperature"])
    page.locator(".choice").click()
    page.get_by_role("button", name="Send command").click()
    expect(page.locator(".result .status").first).to_have_text("Succeeded")
    expect(page.locator(".result").get_by_text("limited", exact=True)).to_be_visible()
