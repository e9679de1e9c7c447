"""One execution: every status against every response, and time at its exact edges."""

from itertools import product

import pytest

from broker_support import AT, NOW, make_execution, say
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_protocol.messages import Progress, StatusReason, decode_request
from thingctl_protocol.statuses import DEVICE_STATUSES, TERMINAL, Delivery, Status

APPLIED, REPEATED, LATE, CONFLICTING = Outcome
GRACE = 5.0


def published():
    execution = make_execution()
    execution.published(AT)
    return execution


def in_state(state):
    """An execution that has come to ``state`` by lawful moves."""
    execution = published()
    if state == "CANCELED by us":
        execution.cancel(NOW, AT, GRACE)
        assert execution.expire(NOW + GRACE, AT + GRACE)
    elif state == "TIMED_OUT":
        assert execution.expire(execution.deadline, AT + 30)
    elif state != "SENT":
        status = Status(state.split()[0])
        execution.respond(say(status), AT + 1)
    return execution


VERDICTS = ["SUCCEEDED", "FAILED", "REJECTED", "CANCELED"]


def expected(state, said):
    """The rules of the protocol, said a second time."""
    if state in {"SENT", "IN_PROGRESS"}:
        return APPLIED
    if state in {"TIMED_OUT", "CANCELED by us"}:
        return LATE
    if said == state.split()[0]:
        return REPEATED
    if state == "CANCELED by the device":
        return LATE
    return REPEATED if said == "IN_PROGRESS" else CONFLICTING


STATES = [
    "SENT",
    "IN_PROGRESS",
    "SUCCEEDED",
    "FAILED",
    "REJECTED",
    "TIMED_OUT",
    "CANCELED by us",
    "CANCELED by the device",
]


@pytest.mark.parametrize(("state", "said"), list(product(STATES, sorted(DEVICE_STATUSES))))
def test_every_response_in_every_state_does_what_the_rules_say(state, said):
    execution = in_state(state)
    before = execution.status
    assert execution.respond(say(said), AT + 2) is expected(state, said)
    assert execution.status is (Status(said) if before not in TERMINAL else before)


@pytest.mark.parametrize(
    ("state", "first", "second"),
    list(product(["TIMED_OUT", "CANCELED by us"], sorted(DEVICE_STATUSES), sorted(DEVICE_STATUSES))),
)
def test_after_a_late_word_only_its_verdict_counts(state, first, second):
    execution = in_state(state)
    execution.respond(say(first), AT + 40)
    outcome = execution.respond(say(second), AT + 50)
    if first == second or (second == "IN_PROGRESS" and first in VERDICTS):
        assert outcome is REPEATED
    elif first == "IN_PROGRESS":
        assert outcome is LATE
    else:
        assert outcome is CONFLICTING
    assert execution.late.status == (second if outcome is LATE else first)
    assert execution.conflicts == (outcome is CONFLICTING)


def test_a_late_response_is_kept_beside_the_verdict_with_its_delay():
    execution = in_state("TIMED_OUT")
    reason = StatusReason("SLOW", "stairs")
    execution.respond(say(Status.SUCCEEDED, result=b"[1]", reason=reason), AT + 37.5)
    late = execution.late
    assert (late.status, late.result, late.reason) == (Status.SUCCEEDED, b"[1]", reason)
    assert (late.at, late.delay_seconds) == (AT + 37.5, 7.5)
    assert execution.status is Status.TIMED_OUT
    assert execution.result is None
    assert execution.reason.reason_code == "NOT_ACKNOWLEDGED"


def test_a_late_delay_is_never_negative_though_the_wall_clock_steps_back():
    execution = in_state("TIMED_OUT")
    execution.respond(say(Status.SUCCEEDED), AT - 86400)
    assert execution.late.delay_seconds == 0.0


def test_a_verdict_brings_its_result_its_reason_and_its_time():
    execution = published()
    reason = StatusReason("E", "text")
    execution.respond(say(Status.FAILED, result=b'{"a":1}', reason=reason), AT + 3)
    assert (execution.result, execution.reason, execution.ended_at) == (b'{"a":1}', reason, AT + 3)
    assert execution.is_terminal


def test_progress_is_replaced_by_newer_and_survives_the_verdict():
    execution = published()
    execution.respond(say(Status.IN_PROGRESS, progress=Progress(10, "begun")), AT + 1)
    execution.respond(say(Status.IN_PROGRESS), AT + 2)
    assert execution.progress == Progress(10, "begun")
    execution.respond(say(Status.IN_PROGRESS, progress=Progress(90)), AT + 3)
    execution.respond(say(Status.SUCCEEDED), AT + 4)
    assert execution.progress == Progress(90)
    assert execution.started_at == AT + 1


def test_progress_ends_nothing_and_brings_no_result():
    execution = published()
    execution.respond(say(Status.IN_PROGRESS, result=b"1"), AT + 1)
    assert (execution.status, execution.result, execution.ended_at) == (Status.IN_PROGRESS, None, None)


def test_a_reason_given_on_the_way_does_not_explain_the_verdict():
    execution = published()
    execution.respond(say(Status.IN_PROGRESS, reason=StatusReason("WARMING_UP")), AT + 1)
    execution.respond(say(Status.IN_PROGRESS), AT + 2)
    assert execution.reason == StatusReason("WARMING_UP")
    execution.respond(say(Status.SUCCEEDED), AT + 3)
    assert execution.reason is None


def test_an_equal_repeat_is_no_conflict_whatever_came_before_the_verdict():
    execution = published()
    execution.respond(say(Status.IN_PROGRESS, reason=StatusReason("WARMING_UP")), AT + 1)
    execution.respond(say(Status.SUCCEEDED, result=b"1"), AT + 2)
    assert execution.respond(say(Status.SUCCEEDED, result=b"1"), AT + 3) is REPEATED
    assert execution.conflicts == 0


@pytest.mark.parametrize("fields", [{"result": b"2"}, {"result": b"1", "reason": StatusReason("X")}])
def test_the_same_status_with_another_result_or_reason_conflicts(fields):
    execution = published()
    execution.respond(say(Status.SUCCEEDED, result=b"1"), AT + 1)
    assert execution.respond(say(Status.SUCCEEDED, **fields), AT + 2) is CONFLICTING
    assert (execution.conflicts, execution.result) == (1, b"1")
    assert execution.ended_at == AT + 1


def test_delivery_goes_as_far_as_is_known():
    execution = make_execution()
    assert execution.delivery is Delivery.QUEUED
    execution.published(AT)
    assert execution.delivery is Delivery.PUBLISHED
    assert execution.delivered(AT + 1) is True
    assert execution.delivery is Delivery.DELIVERED
    execution.respond(say(Status.IN_PROGRESS), AT + 2)
    assert execution.delivery is Delivery.STARTED


def test_publishing_again_counts_and_keeps_the_first_time():
    execution = published()
    execution.published(AT + 9)
    assert (execution.attempts, execution.published_at) == (2, AT)


def test_a_second_acknowledgement_is_no_news():
    execution = published()
    execution.delivered(AT + 1)
    assert execution.delivered(AT + 2) is False
    assert execution.delivered_at == AT + 1


def test_a_retry_is_safe_only_while_the_request_never_left():
    execution = make_execution()
    assert execution.retry_safe
    execution.published(AT)
    assert not execution.retry_safe


def test_a_device_that_answered_has_the_request_though_no_publishing_is_on_record():
    execution = make_execution()
    execution.respond(say(Status.IN_PROGRESS), AT)
    assert not execution.retry_safe
    assert execution.cancel(NOW, AT, GRACE) is Cancel.REQUESTED


def test_canceling_what_never_left_ends_it_at_once():
    execution = make_execution()
    assert execution.cancel(NOW, AT + 1, GRACE) is Cancel.DONE
    assert execution.status is Status.CANCELED
    assert (execution.cancel_requested_at, execution.ended_at) == (AT + 1, AT + 1)
    assert execution.retry_safe
    assert execution.reason.reason_code == "CANCELED"


def test_canceling_what_has_left_asks_the_device_once():
    execution = published()
    assert execution.cancel(NOW, AT + 1, GRACE) is Cancel.REQUESTED
    assert execution.cancel(NOW + 1, AT + 2, GRACE) is Cancel.PENDING
    assert (execution.status, execution.cancel_requested_at) == (Status.SENT, AT + 1)
    assert execution.next_deadline == NOW + GRACE


@pytest.mark.parametrize("state", STATES[2:])
def test_what_has_ended_cannot_be_canceled(state):
    execution = in_state(state)
    before = (execution.status, execution.reason, execution.cancel_requested_at)
    assert execution.cancel(NOW, AT + 50, GRACE) is Cancel.ENDED
    assert (execution.status, execution.reason, execution.cancel_requested_at) == before


@pytest.mark.parametrize("verdict", VERDICTS)
def test_after_a_cancel_the_devices_verdict_decides(verdict):
    execution = published()
    execution.cancel(NOW, AT, GRACE)
    assert execution.respond(say(verdict), AT + 1) is APPLIED
    assert execution.status == verdict
    assert execution.expire(NOW + GRACE, AT + GRACE) is False


def test_without_a_verdict_the_grace_ends_at_its_exact_edge():
    execution = published()
    execution.cancel(NOW, AT, GRACE)
    assert execution.expire(NOW + GRACE - 0.001, AT) is False
    assert execution.expire(NOW + GRACE, AT + GRACE) is True
    assert execution.status is Status.CANCELED
    assert execution.reason.reason_code == "NO_VERDICT"


def test_the_ttl_ends_at_its_exact_edge():
    execution = make_execution(ttl=30)
    assert execution.expire(NOW + 29.999, AT) is False
    assert execution.expire(NOW + 30, AT + 30) is True
    assert (execution.status, execution.ended_at) == (Status.TIMED_OUT, AT + 30)
    assert execution.expire(NOW + 31, AT + 31) is False


@pytest.mark.parametrize(
    ("grace", "ends"), [(29.0, Status.CANCELED), (30.0, Status.TIMED_OUT), (31.0, Status.TIMED_OUT)]
)
def test_of_two_deadlines_long_past_the_first_decides(grace, ends):
    execution = published()
    execution.cancel(NOW, AT, grace)
    assert execution.next_deadline == NOW + min(30, grace)
    execution.expire(NOW + 1000, AT + 1000)
    assert execution.status is ends


@pytest.mark.parametrize(
    ("steps", "delivery", "code"),
    [
        (0, Delivery.QUEUED, "NOT_DELIVERED"),
        (1, Delivery.PUBLISHED, "NOT_ACKNOWLEDGED"),
        (2, Delivery.DELIVERED, "NO_RESPONSE"),
        (3, Delivery.STARTED, "NO_VERDICT"),
    ],
)
def test_a_time_out_says_how_far_the_request_got(steps, delivery, code):
    execution = make_execution()
    moves = [
        lambda: execution.published(AT),
        lambda: execution.delivered(AT),
        lambda: execution.respond(say(Status.IN_PROGRESS), AT),
    ]
    for move in moves[:steps]:
        move()
    execution.expire(execution.deadline, AT + 30)
    assert (execution.delivery, execution.reason.reason_code) == (delivery, code)
    assert execution.retry_safe is (delivery is Delivery.QUEUED)


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_the_wall_clock_moves_no_deadline(jump):
    execution = make_execution()
    execution.published(AT + jump)
    execution.cancel(NOW, AT + jump, 100.0)
    execution.respond(say(Status.IN_PROGRESS), AT + jump)
    assert execution.next_deadline == NOW + 30
    assert execution.expire(NOW + 29.9, AT + jump) is False
    assert execution.expire(NOW + 30, AT - jump) is True


def test_its_request_is_what_was_asked_for():
    execution = make_execution(params=b'{"value": 24}', ttl=30)
    request = decode_request(execution.request(NOW, AT))
    assert (request.command_id, request.action, bytes(request.params)) == (
        execution.command_id,
        execution.action,
        b'{"value": 24}',
    )
    assert (request.timestamp, request.ttl) == (int(execution.created_at), 30)


@pytest.mark.parametrize("step", [-3600.0, 3600.0, -30 * 86400.0])
def test_a_request_written_after_the_clock_was_set_says_its_age_by_the_clock_of_that_moment(step):
    execution = make_execution(ttl=30)
    request = decode_request(execution.request(NOW + 8, AT + 8 + step))
    assert request.timestamp == int(AT + step)


@pytest.mark.parametrize("slack", [-0.2, 0.0, 0.2])
def test_a_request_says_the_same_time_however_often_it_is_written(slack):
    execution = make_execution(ttl=30)
    assert execution.request(NOW + 8, AT + 8 + slack) == execution.request(NOW, AT)


def test_times_of_an_execution_lie_on_one_line():
    execution = make_execution(ttl=30)
    assert execution.when(NOW) == AT
    assert execution.when(NOW + 12.5) == AT + 12.5


def test_a_refused_request_ends_an_open_execution_without_having_started():
    execution = published()
    reason = StatusReason("REFUSED_BY_DEVICE", "quota exceeded")
    assert execution.refuse(reason, AT + 1)
    assert (execution.status, execution.reason, execution.ended_at) == (Status.REJECTED, reason, AT + 1)
    assert execution.delivery is Delivery.PUBLISHED
    assert not execution.refuse(StatusReason("OTHER", "x"), AT + 2)
    assert execution.reason is reason
