"""SQL and Python agree: on every status, every event and every variant of it, field by field."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.storage.postgres.stores import copy_of, frozen, plain
from broker_support import AT, NOW, make_execution, say
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_broker.storage.postgres import transition_sql
from thingctl_protocol.errors import TransitionError
from thingctl_protocol.messages import Progress, Response, StatusReason
from thingctl_protocol.statuses import DEVICE_STATUSES, TERMINAL, TRANSITIONS, Status

GRACE = 5.0
WHY = StatusReason("E1", "a reason with 'quotes', \0 and ☃")
RESULTS = (None, b'{"a": 1 }', b'"\\u0000"')
REASONS = (None, WHY, StatusReason())
PROGRESSES = (None, Progress(50.0, "half"), Progress())
SAYINGS = [
    say(status, result=result, reason=reason, progress=progress)
    for status in sorted(DEVICE_STATUSES)
    for result in RESULTS
    for reason in REASONS
    for progress in PROGRESSES
]


def fresh(path, post_back_uri=""):
    """A live execution whose request has come so far."""
    execution = make_execution(post_back_uri=post_back_uri)
    if path in {"published", "delivered", "again"}:
        execution.published(AT + 0.25)
    if path == "again":
        execution.published(AT + 0.5)
    if path == "delivered":
        execution.delivered(AT + 0.5)
    return execution


def lives():
    """Every kind of live execution: how far it got, what was said so far, whether it is to stop."""
    for path, said, cancel, uri in product(
        ("queued", "published", "delivered", "again"),
        (None, say("IN_PROGRESS"), say("IN_PROGRESS", reason=WHY, progress=Progress(1.0))),
        (False, True),
        ("", "https://example.com/told"),
    ):
        execution = fresh(path, uri)
        if said is not None:
            execution.respond(said, AT + 1)
        if cancel and execution.cancel(NOW + 1, AT + 1, GRACE) is not Cancel.REQUESTED:
            continue
        yield execution


def note(execution, change):
    """What whoever tells webhooks does on an end, or on a late word, of one that asked for it."""
    if change and execution.post_back_uri:
        execution.untold = True


def ends():
    """Every kind of ended one, with and without what came late."""
    closed = []
    for execution in lives():
        for said in (
            say(status, result=RESULTS[1], reason=WHY) for status in sorted(DEVICE_STATUSES & TERMINAL)
        ):
            one = anew(execution)
            one.respond(said, AT + 2)
            closed.append(one)
        one = anew(execution)
        one.expire(one.next_deadline, AT + 30)
        closed.append(one)
    withdrawn = fresh("queued")
    withdrawn.cancel(NOW, AT + 1, GRACE)
    stayed = fresh("published")
    stayed.cancel(NOW, AT + 1, GRACE)
    stayed.stayed_here(AT + 1)
    closed += [withdrawn, stayed]
    for execution in closed:
        note(execution, change=True)
        yield execution
        if execution.status in {Status.TIMED_OUT, Status.CANCELED} and execution.thing:
            for first in (say("IN_PROGRESS"), say("SUCCEEDED", result=RESULTS[2]), say("FAILED", reason=WHY)):
                late = anew(execution)
                if late.respond(first, AT + 40) is Outcome.LATE:
                    yield late


def anew(execution):
    """The same with an id of its own."""
    one = copy_of(execution)
    one.execution_id = make_execution().execution_id
    return one


def all_states():
    return [*lives(), *ends()]


def in_batches(cases, size=500):
    return [cases[i : i + size] for i in range(0, len(cases), size)]


async def test_every_response_to_every_state(postgres_url):
    states = all_states()
    assert {state.status for state in states} == set(Status)
    cases = [(anew(state), saying) for state in states for saying in SAYINGS]
    seen = set()
    async with frozen(postgres_url, AT + 50) as db:
        for batch in in_batches(cases):
            await db.put(*(execution for execution, _ in batch))
            answers = await asyncio.gather(
                *(
                    db.store.executions.respond(execution.thing, execution.execution_id, saying)
                    for execution, saying in batch
                )
            )
            for (execution, saying), answer in zip(batch, answers, strict=True):
                before = execution.status
                outcome = execution.respond(saying, AT + 50)
                note(execution, outcome is Outcome.LATE or (before not in TERMINAL and execution.is_terminal))
                assert answer.outcome is outcome, (before, saying)
                assert plain(answer.execution) == plain(execution), (before, saying)
                seen.add((before, outcome))
            stored = await db.store.executions.many([execution.execution_id for execution, _ in batch])
            assert list(map(plain, stored)) == [plain(execution) for execution, _ in batch]
    assert {outcome for _, outcome in seen} == set(Outcome)


@pytest.mark.parametrize("at", [AT + 2, AT + 6, AT + 6.5, AT + 29.5, AT + 30, AT + 100])
async def test_every_state_is_canceled_and_expires_as_the_rules_say(postgres_url, at):
    states = all_states()
    canceled, expiring = [anew(state) for state in states], [anew(state) for state in states]
    async with frozen(postgres_url, at) as db:
        await db.put(*canceled)
        answers = await asyncio.gather(
            *(db.store.executions.cancel(one.execution_id, GRACE) for one in canceled)
        )
        for execution, answer in zip(canceled, answers, strict=True):
            outcome = execution.cancel(NOW + (at - AT), at, GRACE)
            note(execution, outcome is Cancel.DONE)
            assert (answer.outcome, plain(answer.execution)) == (outcome, plain(execution))
        await db.connection.execute("DELETE FROM thingctl.executions")
        await db.put(*expiring)
        closed = {one.execution_id: one for one in await db.store.executions.expire(10_000)}
        for execution in expiring:
            expired = execution.expire(NOW + (at - AT), at)
            note(execution, expired)
            assert (execution.execution_id in closed) is expired
            found = await db.store.executions.get(execution.execution_id)
            assert plain(found) == plain(execution)
            if expired:
                assert plain(closed[execution.execution_id]) == plain(execution)


async def test_a_request_that_went_nowhere(postgres_url):
    states = [state for state in lives() if state.published_at is not None and not state.delivered_at]
    async with frozen(postgres_url, AT + 3) as db:
        await db.put(*states)
        answers = await asyncio.gather(
            *(db.store.executions.unclaimed(one.execution_id, 7.0, one.published_at) for one in states)
        )
        for execution, answer in zip(states, answers, strict=True):
            if execution.started_at is not None:
                assert answer is None
            elif execution.cancel_requested_at is not None and execution.attempts == 1:
                execution.stayed_here(AT + 3)
                note(execution, change=True)
                assert plain(answer) == plain(execution)
            elif execution.cancel_requested_at is not None:
                assert plain(answer) == plain(execution)  # it may have left before: the thing is to say
            elif execution.attempts == 1:
                assert (answer.published_at, answer.attempts, answer.retry_safe) == (None, 0, True)
            else:
                assert (answer.published_at, answer.attempts) == (execution.published_at, 1)


def test_the_sql_is_made_from_the_one_table():
    moves = transition_sql.moves(DEVICE_STATUSES)
    assert moves in transition_sql.RESPOND
    for before, after in product(Status, Status):
        allowed = after in TRANSITIONS[before] and after in DEVICE_STATUSES
        assert (f"('{before}', '{after}')" in moves) is allowed
    assert transition_sql.sources(Status.CANCELED) == "('SENT', 'IN_PROGRESS')"


async def test_what_a_device_cannot_say_is_an_error_here_too(postgres_url):
    execution = fresh("published")
    async with frozen(postgres_url, AT) as db:
        await db.put(execution)
        with pytest.raises(TransitionError):
            await db.store.executions.respond(execution.thing, execution.execution_id, Response(Status.SENT))
        assert plain(await db.store.executions.get(execution.execution_id)) == plain(execution)


EVENTS = st.one_of(
    st.sampled_from(SAYINGS),
    st.just("cancel"),
    st.just("expire"),
    st.sampled_from([0.25, 1.0, 4.75, 20.0]),
)


class Pair:
    """The same execution as a plain object and as a row."""

    def __init__(self, db, path):
        self.db = db
        self.execution = fresh(path, "https://example.com/told")
        self.at = AT + 1

    async def event(self, event):
        one, executions = self.execution, self.db.store.executions
        now = NOW + (self.at - AT)
        if isinstance(event, float):
            self.at += event
            await self.db.set(self.at)
        elif event == "cancel":
            outcome = one.cancel(now, self.at, GRACE)
            note(one, outcome is Cancel.DONE)
            answer = await executions.cancel(one.execution_id, GRACE)
            assert (answer.outcome, plain(answer.execution)) == (outcome, plain(one))
        elif event == "expire":
            expired = one.expire(now, self.at)
            note(one, expired)
            assert [plain(closed) for closed in await executions.expire(10)] == (
                [plain(one)] if expired else []
            )
        else:
            ended = one.is_terminal
            outcome = one.respond(event, self.at)
            note(one, outcome is Outcome.LATE or (one.is_terminal and not ended))
            answer = await executions.respond(one.thing, one.execution_id, event)
            assert (answer.outcome, plain(answer.execution)) == (outcome, plain(one))


@given(
    path=st.sampled_from(["queued", "published", "delivered", "again"]), events=st.lists(EVENTS, max_size=12)
)
def check_sequences(loop, db, path, events):
    async def run():
        pair = Pair(db, path)
        await db.set(pair.at)
        await db.put(pair.execution)
        for event in events:
            await pair.event(event)
        await db.connection.execute("DELETE FROM thingctl.executions")

    loop.run_until_complete(run())


def test_any_sequence_of_events_leads_to_the_same(postgres_url):
    loop = asyncio.new_event_loop()
    context = frozen(postgres_url, AT)
    db = loop.run_until_complete(context.__aenter__())
    try:
        settings(deadline=None)(check_sequences)(loop, db)
    finally:
        loop.run_until_complete(context.__aexit__(None, None, None))
        loop.close()
