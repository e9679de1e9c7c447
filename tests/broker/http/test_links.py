"""Links lead where they should, whatever stands before the path."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.http.links import location, reference

segments = st.text("ab:.-_%9", min_size=1, max_size=3).filter(lambda text: text not in {".", ".."})
paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("base", "target", "link"),
    [
        ("/api/v1/commands", "/api/v1/commands/7", "commands/7"),
        ("/api/v1/commands/7", "/api/v1/commands/7", "7"),
        ("/api/v1%2Fcommands", "/api/v1/commands/7", "v1/commands/7"),
        ("/api/v1/things/a:b", "/api/v1/things/a:b", "./a:b"),
        ("/beta/me/devices/x/commands/", "/beta/me/devices/x/commands/7", "7"),
        ("/beta/me/devices/x/commands//", "/beta/me/devices/x/commands/7", "../7"),
        ("/beta/me/devices/x/command/", "/beta/me/devices/x/commands/7", "../commands/7"),
    ],
)
def test_what_leads_from_one_path_to_another(base, target, link):
    assert location(base.encode(), target) == (b"location", link.encode())


@given(st.just("") | paths, paths, st.booleans(), paths)
def test_a_client_finds_the_target_under_any_prefix(prefix, base, slash, target):
    link = reference(base + "/" * slash, target)
    assert not link.startswith("/")
    assert urljoin(f"https://x{prefix}{base}{'/' * slash}", link) == f"https://x{prefix}{target}"
