"""The state machine as SQL: the rules of ``executions``, as conditions and assignments.

Text only; nothing here speaks to a database. Which status may follow which comes from
``TRANSITIONS``, which statuses a device may say from ``DEVICE_STATUSES``, reasons from
``executions``: they are read here and never restated. What remains is the shape of each rule,
and that shape is held against :class:`~thingctl_broker.commands.execution.Execution` by tests over
every combination.

Every statement that changes executions has the same form: ``input`` is what is asked, as
arrays; ``judged`` locks the rows in the order of their ids (so that no two workers can wait
for each other) and says of each what becomes of it; ``changed`` does it; ``told`` notifies;
and what comes back is each row as it then stands. In ``judged`` the row is ``e``, and what is
asked of it ``i``; in ``changed`` the row is ``e`` and the judgement ``j``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.commands.execution import CLOSED_BY_US, WITHDRAWN, Cancel, Outcome
from thingctl_broker.commands.execution_fields import ONCE
from thingctl_broker.storage.postgres.execution_rows import columns, columns_of, json_or_none
from thingctl_protocol.statuses import DEVICE_STATUSES, TERMINAL, TRANSITIONS, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingctl_protocol.messages import StatusReason

WAIT_FIRST: Final = 1.0
"""Seconds after which a request that was never published is tried, should nothing else happen."""

WRONG_THING: Final = "WRONG_THING"
"""The judgement of a response from another thing than the execution's."""

NOTIFY_MAX: Final = 200
"""Ids of one notification: a payload has less than 8,000 bytes, an id takes 38."""

CHANNEL: Final = "thingctl"

EXECUTIONS_PAYLOAD: Final = "x"
"""What a notification of executions begins with. Ids follow, with commas between; an id that
has just ended has ``ENDED_MARK`` before it."""

ENDED_MARK: Final = "!"


def quoted(text: str) -> str:
    """``text`` as a literal.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def listed(statuses: Iterable[Status]) -> str:
    """Statuses as what follows IN, in the order of ``Status``."""
    wanted = frozenset(statuses)
    return "(" + ", ".join(quoted(status) for status in Status if status in wanted) + ")"


def moves(among: Iterable[Status]) -> str:
    """The moves of ``TRANSITIONS`` into ``among``, as what follows ``(from, to) IN``."""
    wanted = frozenset(among)
    pairs = [(a, b) for a in Status for b in Status if b in TRANSITIONS[a] and b in wanted]
    return "(" + ", ".join(f"({quoted(a)}, {quoted(b)})" for a, b in pairs) + ")"


def sources(to: Status) -> str:
    """The statuses that may become ``to``, as what follows IN."""
    return listed(status for status, following in TRANSITIONS.items() if to in following)


def reason_text(reason: StatusReason) -> str:
    """A reason, as a literal."""
    return quoted(json_or_none(reason) or "")


CLOCK: Final = "clock AS MATERIALIZED (SELECT thingctl.now() AS now)"
NOW: Final = "(SELECT now FROM clock)"
"""The store's time, read once for a statement."""

_TERMINAL: Final = listed(TERMINAL)


def _same(left: str, right: str) -> str:
    return f"{left} IS NOT DISTINCT FROM {right}"


_IS_APPLIED: Final = f"(e.status, i.said) IN {moves(DEVICE_STATUSES)}"

_CONTRADICTION: Final = (
    f"CASE WHEN i.said IN {_TERMINAL} THEN '{Outcome.CONFLICTING.name}' ELSE '{Outcome.REPEATED.name}' END"
)
"""A verdict contradicts the one that stands; a report of progress came behind it."""

_RESPONSE: Final = f"""CASE
    WHEN e.thing <> i.thing THEN {quoted(WRONG_THING)}
    WHEN e.status NOT IN {_TERMINAL} THEN CASE WHEN {_IS_APPLIED} THEN '{Outcome.APPLIED.name}' END
    WHEN e.status = i.said AND {_same("e.result", "i.result")} AND e.started_at IS NOT NULL
        AND {_same("e.reason", "i.reason")} THEN '{Outcome.REPEATED.name}'
    WHEN e.status NOT IN {listed(CLOSED_BY_US)} THEN
        {_CONTRADICTION}
    WHEN e.late_status = i.said AND {_same("e.late_result", "i.result")}
        AND {_same("e.late_reason", "i.reason")} THEN '{Outcome.REPEATED.name}'
    WHEN e.late_status IN {_TERMINAL} THEN
        {_CONTRADICTION}
    ELSE '{Outcome.LATE.name}'
END"""

_ENDS: Final = f"(j.outcome = '{Outcome.APPLIED.name}' AND j.said IN {_TERMINAL})"
_APPLIES: Final = f"j.outcome = '{Outcome.APPLIED.name}'"
_IS_LATE: Final = f"j.outcome = '{Outcome.LATE.name}'"
_STARTS: Final = f"j.outcome IN ('{Outcome.APPLIED.name}', '{Outcome.LATE.name}')"


def when(condition: str, then: str, otherwise: str) -> str:
    """A value of two."""
    return f"CASE WHEN {condition} THEN {then} ELSE {otherwise} END"


def tell_at(condition: str, tell_all: str) -> str:
    """``tell_at``, when the end is one that somebody outside is to be told of."""
    return when(f"{condition} AND (e.post_back_uri <> '' OR {tell_all})", "j.now", "e.tell_at")


def assigned(assignments: dict[str, str]) -> str:
    """What follows SET."""
    return ",\n    ".join(f"{column} = {value}" for column, value in assignments.items())


def told(ended: str, of: str = "changed") -> str:
    """Notify of the rows of ``changed``, as many as fit in each notification."""
    return f"""told AS (
    SELECT count(pg_notify('{CHANNEL}', payload)) AS notifications FROM (
        SELECT '{EXECUTIONS_PAYLOAD}' || string_agg(
            CASE WHEN {ended} THEN '{ENDED_MARK}' ELSE '' END || execution_id::text, ',') AS payload
        FROM (SELECT *, (row_number() OVER () - 1) / {NOTIFY_MAX} AS part FROM {of}) numbered
        GROUP BY part
    ) payloads
)"""


def _change(*, judged: str, do: str, assignments: dict[str, str], ended: str) -> str:
    """A statement as the module says. ``do``: which judgements (of ``j``) change anything."""
    return f"""
WITH {CLOCK},
{judged},
changed AS (
    UPDATE thingctl.executions e SET
    {assigned(assignments)}
    FROM judged j WHERE e.execution_id = j.execution_id AND {do}
    RETURNING j.n, j.outcome, j.now, {columns("e")}
),
{told(ended)}
SELECT changed.* FROM changed, told
UNION ALL
SELECT j.n, j.outcome, j.now, {columns("j")} FROM judged j WHERE ({do}) IS NOT TRUE
"""


RESPOND: Final = _change(
    # $1..$6: the input's columns; $7: whether everything is to be told outside.
    judged=f"""input AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        WITH ORDINALITY AS i (execution_id, thing, said, result, reason, progress, n)
),
judged AS MATERIALIZED (
    SELECT {columns("e")}, i.n, i.said, i.result AS said_result, i.reason AS said_reason,
        i.progress AS said_progress, {NOW} AS now, {_RESPONSE} AS outcome
    FROM input i JOIN thingctl.executions e ON e.execution_id = i.execution_id
    ORDER BY e.execution_id FOR UPDATE OF e
)""",
    do=f"j.outcome IN ('{Outcome.APPLIED.name}', '{Outcome.LATE.name}', '{Outcome.CONFLICTING.name}')",
    assignments={
        "status": when(_APPLIES, "j.said", "e.status"),
        "started_at": when(_STARTS, "coalesce(e.started_at, j.now)", "e.started_at"),
        "progress": when(_APPLIES, "coalesce(j.said_progress, e.progress)", "e.progress"),
        "result": when(_ENDS, "j.said_result", "e.result"),
        # An earlier report's reason does not explain the verdict.
        "reason": f"CASE WHEN {_ENDS} THEN j.said_reason "
        f"WHEN {_APPLIES} THEN coalesce(j.said_reason, e.reason) ELSE e.reason END",
        "ended_at": when(_ENDS, "j.now", "e.ended_at"),
        "due_at": when(_ENDS, "NULL", "e.due_at"),
        "retry_at": when(_APPLIES, "NULL", "e.retry_at"),
        "unhanded_since": when(_APPLIES, "NULL", "e.unhanded_since"),
        "late_status": when(_IS_LATE, "j.said", "e.late_status"),
        "late_at": when(_IS_LATE, "j.now", "e.late_at"),
        "late_delay": when(_IS_LATE, "greatest(0, j.now - coalesce(e.ended_at, j.now))", "e.late_delay"),
        "late_result": when(_IS_LATE, "j.said_result", "e.late_result"),
        "late_reason": when(_IS_LATE, "j.said_reason", "e.late_reason"),
        "conflicts": f"e.conflicts + (j.outcome = '{Outcome.CONFLICTING.name}')::integer",
        "tell_at": tell_at(f"({_ENDS} OR {_IS_LATE})", "$7::boolean"),
    },
    ended=f"outcome = '{Outcome.APPLIED.name}' AND status IN {_TERMINAL}",
)

_RETRY_SAFE: Final = "e.published_at IS NULL AND e.started_at IS NULL"
_DONE: Final = f"j.outcome = '{Cancel.DONE.name}'"

CANCEL: Final = _change(
    # $1: ids; $2: grace of each, seconds; $3: whether everything is to be told outside.
    judged=f"""input AS (
    SELECT * FROM unnest($1::uuid[], $2::double precision[]) WITH ORDINALITY AS i (execution_id, grace, n)
),
judged AS MATERIALIZED (
    SELECT {columns("e")}, i.n, i.grace, {NOW} AS now, CASE
        WHEN e.status NOT IN {sources(Status.CANCELED)} THEN '{Cancel.ENDED.name}'
        WHEN e.cancel_requested_at IS NOT NULL THEN '{Cancel.PENDING.name}'
        WHEN {_RETRY_SAFE} THEN '{Cancel.DONE.name}'
        ELSE '{Cancel.REQUESTED.name}'
    END AS outcome
    FROM input i JOIN thingctl.executions e ON e.execution_id = i.execution_id
    ORDER BY e.execution_id FOR UPDATE OF e
)""",
    do=f"j.outcome IN ('{Cancel.DONE.name}', '{Cancel.REQUESTED.name}')",
    assignments={
        "cancel_requested_at": "j.now",
        "cancel_grace": when(_DONE, "e.cancel_grace", "j.grace"),
        "status": when(_DONE, quoted(Status.CANCELED), "e.status"),
        "reason": when(_DONE, reason_text(WITHDRAWN), "e.reason"),
        "ended_at": when(_DONE, "j.now", "e.ended_at"),
        "due_at": when(_DONE, "NULL", "least(e.due_at, j.now + j.grace)"),
        "retry_at": "NULL",
        "tell_at": tell_at(_DONE, "$3::boolean"),
    },
    ended=f"outcome = '{Cancel.DONE.name}'",
)

_STAYED: Final = "j.outcome = 'STAYED'"

UNCLAIMED: Final = _change(
    # $1: ids; $2: seconds until each is tried again; $3: whether everything is to be told outside;
    # $4: when each was published. The statement may be asked again after its answer was lost, and
    # by then somebody else may have published anew: that must not be taken back.
    # The request left for nobody. If it was published before that, it may have left then: it
    # waits again, but stays on record as published, and a cancel is the device's to answer.
    judged=f"""input AS (
    SELECT * FROM unnest($1::uuid[], $2::double precision[], $4::double precision[])
        WITH ORDINALITY AS i (execution_id, retry_in, published_at, n)
),
judged AS MATERIALIZED (
    SELECT {columns("e")}, i.n, i.retry_in, {NOW} AS now, CASE
        WHEN e.status NOT IN {sources(Status.CANCELED)} OR e.started_at IS NOT NULL
            OR e.unhanded_since IS NULL OR e.published_at IS DISTINCT FROM i.published_at THEN 'OVERTAKEN'
        WHEN e.cancel_requested_at IS NULL THEN 'WAITS'
        WHEN e.attempts <= 1 THEN 'STAYED'
        ELSE 'PENDING'
    END AS outcome
    FROM input i JOIN thingctl.executions e ON e.execution_id = i.execution_id
    ORDER BY e.execution_id FOR UPDATE OF e
)""",
    do="j.outcome IN ('WAITS', 'STAYED')",
    assignments={
        "published_at": "CASE WHEN e.attempts <= 1 THEN NULL ELSE e.published_at END",
        "attempts": "greatest(e.attempts - 1, 0)",
        "status": when(_STAYED, quoted(Status.CANCELED), "e.status"),
        "reason": when(_STAYED, reason_text(WITHDRAWN), "e.reason"),
        "ended_at": when(_STAYED, "j.now", "e.ended_at"),
        "due_at": when(_STAYED, "NULL", "e.due_at"),
        "retry_at": when(_STAYED, "NULL", "j.now + j.retry_in"),
        "unhanded_since": "NULL",
        "tell_at": tell_at(_STAYED, "$3::boolean"),
    },
    ended="outcome = 'STAYED'",
)


GIVEN: Final = tuple(field for field in ONCE if field.name != "created_at")
"""Fields of a new execution that come with it; the store says when that is."""

_GIVEN_TYPES: Final = {"execution_id": "uuid"} | columns_of(GIVEN)
_HEAD: Final = ", ".join(_GIVEN_TYPES)
_NEW: Final = ", ".join(
    f"${n}::{kind}[]" for n, kind in enumerate((*_GIVEN_TYPES.values(), "boolean", "integer"), 1)
)

ADD: Final = f"""
WITH {CLOCK},
input AS (
    SELECT *, {NOW} AS now FROM unnest({_NEW}) WITH ORDINALITY AS i ({_HEAD}, published, queue_max, n)
),
news AS MATERIALIZED (
    SELECT i.* FROM input i
    WHERE NOT EXISTS (SELECT FROM thingctl.executions e WHERE e.execution_id = i.execution_id)
        AND (i.idempotency_key = '' OR (
            -- LIMIT: one look into the index for each, never the whole table into a hash.
            SELECT true FROM thingctl.idempotency_keys k
            WHERE k.requested_by = i.requested_by AND k.key = i.idempotency_key LIMIT 1) IS NULL)
),
fitting AS MATERIALIZED (
    SELECT w.*, w.published OR (
        SELECT count(*) FROM (
            SELECT FROM thingctl.executions e WHERE e.thing = w.thing AND e.retry_at IS NOT NULL
            LIMIT w.queue_max
        ) waiting
    ) + w.nth <= w.queue_max AS fits
    FROM (
        SELECT news.*, count(*) FILTER (WHERE NOT published) OVER (PARTITION BY thing ORDER BY n) AS nth
        FROM news
    ) w
),
keyed AS (
    INSERT INTO thingctl.idempotency_keys (requested_by, key, fingerprint, execution_id)
    SELECT requested_by, idempotency_key, fingerprint, execution_id FROM fitting
    WHERE fits AND idempotency_key <> '' ORDER BY requested_by, idempotency_key
    ON CONFLICT DO NOTHING RETURNING execution_id
),
changed AS (
    INSERT INTO thingctl.executions (
        {_HEAD}, status, created_at, due_at, attempts, published_at, unhanded_since, retry_at
    )
    SELECT {_HEAD}, {quoted(Status.SENT)}, now, now + ttl, published::integer,
        CASE WHEN published THEN now END, CASE WHEN published THEN now END,
        CASE WHEN NOT published THEN now + {WAIT_FIRST} END
    FROM fitting f
    WHERE fits AND (idempotency_key = '' OR execution_id IN (SELECT k.execution_id FROM keyed k))
    ORDER BY execution_id
    ON CONFLICT DO NOTHING RETURNING execution_id, created_at
),
{told("false")}
SELECT execution_id, created_at FROM changed, told
UNION ALL
SELECT execution_id, NULL FROM fitting WHERE NOT fits
"""
"""New executions: those that were taken in, with the time, and those that have no room, without.
Of the others there is one with that id or that key already, or has just come. (No joins here:
what is switched off for the sake of the large tables would make them square.)"""
