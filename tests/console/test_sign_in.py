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
    with page.expect_request("**/api/v1/commands?limit=1") as request:
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
