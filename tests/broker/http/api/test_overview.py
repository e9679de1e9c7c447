"""``GET /api/v1/overview``."""

from __future__ import annotations

import pytest


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


def test_the_last_hour_by_minute_and_status(api):
    api.connect("lamp")
    done = api.send("lamp")
    api.send("lock")
    api.clock.advance(0.25)
    api.respond(done, status="SUCCEEDED")
    seen = api.get("/api/v1/overview").json
    assert seen["things"] == {"total": 2, "online": 1}
    assert seen["executions"] == {"total": 2, "live": 1}
    assert len(seen["minutes"]) == 60
    assert seen["minutes"][-1]["at"] == "2025-05-28T00:00:00.000Z"
    for whole in (seen["minutes"][-1], seen["hour"]):
        assert (whole["created"], whole["ended"]) == (2, {"SUCCEEDED": 1})
        assert whole["latency"]["count"] == 1
        assert 0.23 < whole["latency"]["p50"] < 0.27
    assert seen["minutes"][0]["latency"] is None


def test_what_went_wrong_in_the_last_hour_is_put_together(api):
    api.connect("lamp")
    api.connect("lock")
    old = api.send("lamp")
    api.respond(old, status="FAILED", statusReason={"reasonCode": "OLD"})
    api.clock.advance(3601)
    for thing in ("lamp", "lock"):
        api.respond(api.send(thing), status="FAILED", statusReason={"reasonCode": "VALVE"})
    api.respond(api.send("lock"), status="SUCCEEDED")
    api.send("lamp")
    assert api.get("/api/v1/overview").json["outcomes"] == [
        {"status": "FAILED", "count": 2, "examples": ["lamp", "lock"], "reasonCode": "VALVE"}
    ]
