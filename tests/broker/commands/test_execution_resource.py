"""Executions as the API shows them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.commands.execution import Execution, Late
from thingctl_broker.commands.execution_resource import (
    PAGE_BYTES_MAX,
    EventResource,
    encode_execution,
    encode_page,
    rfc3339,
)
from thingctl_protocol.messages import Progress, StatusReason
from thingctl_protocol.statuses import TERMINAL, Status

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_utc_to_the_millisecond(unix_ms):
    text = rfc3339(unix_ms / 1000)
    assert text.endswith("Z")
    assert len(text) == 24
    assert abs(datetime.fromisoformat(text) - EPOCH - timedelta(milliseconds=unix_ms)) <= timedelta(
        milliseconds=1
    )


def execution(**fields):
    return Execution(
        execution_id="e", command_id="c", thing="lamp", action="x", params=b'{"a": 1.10}', ttl=30,
        created_at=1000.0, deadline=0.0, **fields,
    )  # fmt: skip


def test_an_execution_shows_every_field_that_it_has():
    told = encode_execution(
        execution(
            status=Status.TIMED_OUT,
            result=b'{"b": 2}',
            reason=StatusReason("NO_RESPONSE", "why"),
            progress=Progress(50.0, "half"),
            late=Late(Status.FAILED, 1040.5, 10.25, b"[3]", StatusReason("E")),
            attempts=2,
            conflicts=3,
            published_at=1000.25,
            delivered_at=1001.0,
            started_at=1002.0,
            cancel_requested_at=1003.0,
            ended_at=1030.0,
        )
    )
    assert b'"params":{"a": 1.10}' in told  # as it came, to the digit
    assert json.loads(told) == {
        "executionId": "e",
        "commandId": "c",
        "thingId": "lamp",
        "action": "x",
        "params": {"a": 1.1},
        "ttl": 30,
        "status": "TIMED_OUT",
        "delivery": "STARTED",
        "attempts": 2,
        "createdAt": "1970-01-01T00:16:40.000Z",
        "expiresAt": "1970-01-01T00:17:10.000Z",
        "events": [
            {"at": "1970-01-01T00:16:40.000Z", "event": "created"},
            {"at": "1970-01-01T00:16:40.250Z", "event": "published"},
            {"at": "1970-01-01T00:16:41.000Z", "event": "delivered"},
            {"at": "1970-01-01T00:16:42.000Z", "event": "started"},
            {"at": "1970-01-01T00:16:43.000Z", "event": "cancelRequested"},
            {"at": "1970-01-01T00:17:10.000Z", "event": "ended"},
            {"at": "1970-01-01T00:17:20.500Z", "event": "late"},
        ],
        "result": {"b": 2},
        "statusReason": {"reasonCode": "NO_RESPONSE", "reasonDescription": "why"},
        "retrySafe": False,
        "late": {
            "status": "FAILED",
            "at": "1970-01-01T00:17:20.500Z",
            "delaySeconds": 10.25,
            "result": [3],
            "statusReason": {"reasonCode": "E"},
        },
        "conflicts": 3,
        "publishedAt": "1970-01-01T00:16:40.250Z",
        "deliveredAt": "1970-01-01T00:16:41.000Z",
        "startedAt": "1970-01-01T00:16:42.000Z",
        "cancelRequestedAt": "1970-01-01T00:16:43.000Z",
        "endedAt": "1970-01-01T00:17:10.000Z",
        "durationSeconds": 30.0,
    }


def test_progress_is_shown_of_an_execution_at_work_only():
    for status in Status:
        told = json.loads(encode_execution(execution(status=status, progress=Progress(50.0, "half"))))
        assert ("progress" in told) == (status not in TERMINAL)


def test_a_first_answer_that_is_the_verdict_is_no_start():
    told = json.loads(
        encode_execution(execution(status=Status.SUCCEEDED, started_at=1002.0, ended_at=1002.0))
    )
    assert "startedAt" not in told
    assert [event["event"] for event in told["events"]] == ["created", "ended"]
    late = Late(Status.SUCCEEDED, 1040.0, 10.0)
    told = json.loads(
        encode_execution(execution(status=Status.TIMED_OUT, started_at=1040.0, ended_at=1030.0, late=late))
    )
    assert [event["event"] for event in told["events"]] == ["created", "ended", "late"]


def test_events_stand_in_the_order_of_time():
    """An answer may overtake the PUBACK of its request."""
    told = json.loads(
        encode_execution(
            execution(published_at=1001.0, started_at=1001.5, ended_at=1002.0, delivered_at=1003.0)
        )
    )
    assert [event["event"] for event in told["events"]] == [
        "created",
        "published",
        "started",
        "ended",
        "delivered",
    ]


def test_a_wall_clock_that_steps_back_makes_no_negative_duration():
    told = json.loads(encode_execution(execution(status=Status.FAILED, ended_at=900.0)))
    assert told["durationSeconds"] == 0.0


def test_a_result_of_null_is_a_result():
    assert json.loads(encode_execution(execution(status=Status.SUCCEEDED, result=b"null")))["result"] is None


@given(st.lists(st.integers(1, PAGE_BYTES_MAX + 10), min_size=1, max_size=6), st.none() | st.just("end"))
def test_a_page_holds_what_fits_and_its_cursor_points_behind_that(sizes, cursor):
    items = [(str(i), EventResource("x" * size, "")) for i, size in enumerate(sizes)]
    page = json.loads(encode_page("events", items, cursor))
    shown = len(page["events"])
    assert shown >= 1
    if shown == len(sizes):
        assert page["nextCursor"] == cursor
    else:
        assert page["nextCursor"] == str(shown - 1)
        assert sum(sizes[: shown + 1]) > PAGE_BYTES_MAX - 1000
    assert shown == 1 or sum(sizes[:shown]) <= PAGE_BYTES_MAX
