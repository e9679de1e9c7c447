"""What time and workers do to executions, as SQL.

Of what is claimed no two workers get the same.

Rows that somebody else is at are left to them (SKIP LOCKED): nobody waits for anybody. The
form of the statements is that of ``rules``.
"""

from __future__ import annotations

from typing import Final

from thingctl_broker.commands.execution import CANCEL_UNANSWERED, TIMED_OUT
from thingctl_broker.storage.postgres.execution_rows import columns
from thingctl_broker.storage.postgres.transition_sql import (
    CLOCK,
    NOW,
    assigned,
    quoted,
    reason_text,
    tell_at,
    told,
    when,
)
from thingctl_protocol.statuses import Delivery, Status


def _claim(*, which: str, order: str, assignments: dict[str, str]) -> str:
    """A statement that takes rows nobody else is at; ``$1``: at most so many."""
    judged = f"""SELECT e.execution_id, {NOW} AS now FROM thingctl.executions e
    WHERE {which}
    ORDER BY {order} LIMIT $1::bigint FOR UPDATE OF e SKIP LOCKED"""
    return _change(judged, assignments, ended="false")


def _change(judged: str, assignments: dict[str, str], *, ended: str) -> str:
    """A statement that changes the rows that ``judged`` selects, tells of it, and returns them."""
    return f"""
WITH {CLOCK},
judged AS MATERIALIZED (
    {judged}
),
changed AS (
    UPDATE thingctl.executions e SET
    {assigned(assignments)}
    FROM judged j WHERE e.execution_id = j.execution_id
    RETURNING j.now, {columns("e")}
),
{told(ended)}
SELECT changed.* FROM changed, told ORDER BY execution_id
"""


_PUBLISHED_AGAIN: Final = {
    "attempts": "e.attempts + 1",
    "published_at": "coalesce(e.published_at, j.now)",
    "unhanded_since": "j.now",
    "retry_at": "NULL",
}

CLAIM_WAITING: Final = _claim(
    # $2: the thing. What has expired is for expire.
    which=f"e.thing = $2::text AND e.retry_at IS NOT NULL AND e.due_at > {NOW}",
    order="e.execution_id",
    assignments=_PUBLISHED_AGAIN,
)

CLAIM_UNHANDED: Final = _claim(
    # $2: seconds.
    which=f"e.unhanded_since <= {NOW} - $2::double precision AND e.unhanded_since IS NOT NULL "
    f"AND e.cancel_requested_at IS NULL AND e.due_at > {NOW}",
    order="e.unhanded_since",
    assignments=_PUBLISHED_AGAIN,
)

CANCELING: Final = """
SELECT e.thing, e.execution_id FROM thingctl.executions e
WHERE e.due_at IS NOT NULL AND e.due_at <= (SELECT thingctl.now()) + $2::double precision
    AND e.cancel_requested_at IS NOT NULL
ORDER BY e.due_at LIMIT $1::bigint
"""
"""``$1``: at most so many; ``$2``: whose deadline is within so many seconds. That is what makes it cheap:
the index of deadlines leads to them."""

_DEADLINE: Final = "(e.created_at + e.ttl)"
_CANCEL_DEADLINE: Final = "(e.cancel_requested_at + e.cancel_grace)"


def _timed_out_reason() -> str:
    # In the order in which ``Execution.delivery`` looks.
    reached = {
        Delivery.STARTED: "e.started_at IS NOT NULL",
        Delivery.DELIVERED: "e.delivered_at IS NOT NULL",
        Delivery.QUEUED: "e.published_at IS NULL",
        Delivery.PUBLISHED: "true",
    }
    cases = " ".join(
        f"WHEN {condition} THEN {reason_text(TIMED_OUT[how])}" for how, condition in reached.items()
    )
    return f"CASE {cases} END"


_TTL_FIRST: Final = f"coalesce({_DEADLINE} <= {_CANCEL_DEADLINE}, true)"

_EXPIRED: Final = {
    # When both deadlines have passed, the one that came first decides, however late we look.
    "status": when(_TTL_FIRST, quoted(Status.TIMED_OUT), quoted(Status.CANCELED)),
    "reason": when(_TTL_FIRST, _timed_out_reason(), reason_text(CANCEL_UNANSWERED)),
    "ended_at": "j.now",
    "due_at": "NULL",
    "retry_at": "NULL",
    "unhanded_since": "NULL",
    "tell_at": tell_at("true", "$2::boolean"),
}

DUE: Final = """
SELECT e.execution_id FROM thingctl.executions e
WHERE e.due_at <= (SELECT thingctl.now()) AND e.due_at IS NOT NULL ORDER BY e.due_at LIMIT $1::bigint
"""
"""What to expire. Asked for by itself, so that it is known what was asked when the answer is lost."""

EXPIRE: Final = _change(
    f"""SELECT e.execution_id, {NOW} AS now FROM unnest($1::uuid[]) AS i (execution_id)
        JOIN thingctl.executions e ON e.execution_id = i.execution_id
    WHERE e.due_at <= {NOW} AND e.due_at IS NOT NULL
    ORDER BY e.execution_id FOR UPDATE OF e SKIP LOCKED""",
    _EXPIRED,
    ended="true",
)
"""``$1``: which; ``$2``: whether everything is to be told outside."""

CLAIM_UNTOLD: Final = f"""
WITH {CLOCK},
judged AS MATERIALIZED (
    SELECT e.execution_id, {NOW} AS now FROM thingctl.executions e
    WHERE e.tell_at <= {NOW} AND e.tell_at IS NOT NULL
    ORDER BY e.tell_at LIMIT $1::bigint FOR UPDATE OF e SKIP LOCKED
)
UPDATE thingctl.executions e SET tell_at = j.now + $2::double precision
FROM judged j WHERE e.execution_id = j.execution_id
RETURNING j.now, {columns("e")}
"""

TOLD: Final = """
WITH input AS (
    SELECT * FROM unnest($1::uuid[], $2::double precision[]) AS i (execution_id, claimed)
),
judged AS MATERIALIZED (
    SELECT e.execution_id FROM input i
        JOIN thingctl.executions e ON e.execution_id = i.execution_id AND e.tell_at = i.claimed
    ORDER BY e.execution_id FOR UPDATE OF e
)
UPDATE thingctl.executions e SET tell_at = NULL
FROM judged j WHERE e.execution_id = j.execution_id
"""
"""Only what is still claimed as it was: what came late meanwhile has yet to be told."""

HANDED: Final = """
WITH judged AS MATERIALIZED (
    SELECT e.execution_id FROM unnest($1::uuid[]) AS i (execution_id)
        JOIN thingctl.executions e ON e.execution_id = i.execution_id AND e.unhanded_since IS NOT NULL
    ORDER BY e.execution_id FOR UPDATE OF e
)
UPDATE thingctl.executions e SET unhanded_since = NULL
FROM judged j WHERE e.execution_id = j.execution_id
"""
