"""``thingctl console``."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

from thingctl_broker.cli.exits import Exit


def redeem(link):
    base, _, code = link.partition("#sign-in=")
    body = json.dumps({"code": code}).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{base}api/v1/sign-in", body, headers)) as answer:
        return json.load(answer)


def test_it_prints_a_link_that_signs_in(quick, api):
    ran = quick("console")
    link, session, _ = ran.out.splitlines()
    assert link.startswith(f"{api.url}/#sign-in=")
    begun = redeem(link)
    assert session.split() == ["session", begun["name"]]
    assert quick("tokens", "--token", begun["token"]).code == 0


def test_for_programs(quick):
    made = quick("console", "--json").json
    assert redeem(made["url"])["name"] == made["name"]


def test_open_starts_the_browser(quick, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda link: opened.append(link) or True)
    assert quick("console", "--open").code == 0
    assert redeem(opened[0])
    monkeypatch.setattr("webbrowser.open", lambda link: False)
    ran = quick("console", "--open")
    assert (ran.code, "open the link in one yourself" in ran.err) == (Exit.REFUSED, True)
    assert "#sign-in=" in ran.out
