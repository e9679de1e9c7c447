"""Suggestions for names that are not known."""

from __future__ import annotations

import pytest

from thingctl_agent.core.hints import did_you_mean, unknown_action
from thingctl_protocol.limits import ACTION_MAX, REASON_DESCRIPTION_MAX


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("watre", ["water", "flush"], "named 'watre'; did you mean 'water'? It has: water, flush"),
        ("WATER", ["water"], "did you mean 'water'?"),
        ("xyz", ["water", "flush"], "named 'xyz'; it has: water, flush"),
        ("xyz", [], "named 'xyz'; it has none"),
    ],
)
def test_an_unknown_action_is_answered_with_those_there_are(name, known, text):
    assert text in unknown_action(name, known)


def test_the_list_is_bounded():
    names = [f"{number:03}" + "x" * (ACTION_MAX - 3) for number in range(200)]
    text = unknown_action("y" * ACTION_MAX, names)
    assert len(text) <= REASON_DESCRIPTION_MAX
    assert text.endswith(" more")
    assert len(unknown_action("x" * ACTION_MAX, names)) <= REASON_DESCRIPTION_MAX


def test_nothing_close_is_no_hint():
    assert did_you_mean("--colour", ["--thing"]) == ""
