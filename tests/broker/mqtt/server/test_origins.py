"""Which pages may connect."""

from __future__ import annotations

import pytest

from thingctl_broker.mqtt.server.origins import AllowedOrigins, is_origin

OWN = {"127.0.0.1:8080"}


@pytest.mark.parametrize(
    ("named", "origins", "admitted"),
    [
        ((), [], True),
        ((), ["http://127.0.0.1:8080"], True),
        ((), ["https://app.example"], False),
        (("https://app.example",), ["https://app.example"], True),
        (("https://App.Example:443",), ["https://app.example"], True),
        (("https://app.example",), ["https://app.example:8443"], False),
        (("https://app.example",), ["http://app.example"], False),
        (("https://app.example",), ["https://app.example.evil"], False),
        (("https://app.example",), ["https://app.example", "https://evil.example"], False),
        (("capacitor://localhost",), ["capacitor://localhost"], True),
        (("https://app.example",), ["null"], False),
        (("https://app.example",), ["http://["], False),
        (("*",), ["https://evil.example"], True),
        (("*",), ["null"], True),
        (("*",), ["http://["], True),
    ],
)
def test_pages_are_admitted_by_their_origin(named, origins, admitted):
    assert AllowedOrigins(OWN, named).admits(origins) is admitted


@pytest.mark.parametrize(
    "text", ["", "app.example", "https://", "https://a/b", "https://u@a", "https://a b", "**"]
)
def test_what_no_origin_looks_like(text):
    assert not is_origin(text)
