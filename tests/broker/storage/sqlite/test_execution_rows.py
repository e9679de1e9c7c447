"""Whatever an execution holds comes back from SQLite as it was, or is refused."""

import sqlite3

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_support import AT, NOW, make_execution
from thingctl_broker.commands.execution import Execution, Late
from thingctl_broker.storage.sqlite.execution_rows import (
    DELETE,
    SCHEMA,
    SELECT,
    RowReader,
    encode_ids,
    to_rows,
    upserts,
)
from thingctl_protocol.messages import Progress, StatusReason
from thingctl_protocol.statuses import Status

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TRICKY = st.one_of(
    TEXT,
    st.sampled_from(
        ["\0", "a\0b", "\\0", "\\\0", "\0\\", "\\\\0", "'; DROP TABLE executions; --", "\u2028é😀"]
    ),
)
JSON = st.one_of(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
        max_leaves=6,
    ).map(msgspec.json.encode),
    st.sampled_from(
        [
            b'{"n":123456789012345678901234567890,"m":1e400,"k":-0.0}',
            b'{ "spaced" : [ 1 , 2 ] }',
            b'{"nul":"\\u0000","half":"\\ud83d\\ude00","quote":"\\"","slash":"\\/"}',
            b"null",
            b'""',
            b"0.1000000000000000055511151231257827",
        ]
    ),
)
MOMENT = st.one_of(st.floats(0, 4e9), st.integers(0, 2**33))
PERHAPS = st.one_of(st.none(), MOMENT)
REASON = st.one_of(st.none(), st.builds(StatusReason, TRICKY, TRICKY))
PROGRESS = st.one_of(
    st.none(),
    st.builds(Progress, st.one_of(st.none(), st.floats(0, 100)), st.one_of(st.none(), TRICKY)),
)
RESULT = st.one_of(st.none(), JSON)
LATE = st.one_of(
    st.none(), st.builds(Late, st.sampled_from(Status), st.floats(0, 4e9), st.floats(0, 1e9), RESULT, REASON)
)
EXECUTIONS = st.fixed_dictionaries(
    {
        "params": JSON,
        "ttl": st.integers(1, 604800),
        "created_at": MOMENT,
        "requested_by": TRICKY,
        "idempotency_key": TRICKY,
        "fingerprint": st.sampled_from(["", "0123456789abcdef" * 2]),
        "status": st.sampled_from(Status),
        "result": RESULT,
        "reason": REASON,
        "progress": PROGRESS,
        "late": LATE,
        "attempts": st.integers(0, 2**62),
        "conflicts": st.integers(0, 2**62),
        "published_at": PERHAPS,
        "delivered_at": PERHAPS,
        "started_at": PERHAPS,
        "cancel_requested_at": PERHAPS,
        "cancel_grace": st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 100)),
        "ended_at": PERHAPS,
    }
)
NOT_KEPT = {"deadline", "cancel_deadline", "kept"}


@pytest.fixture(scope="module")
def database():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(SCHEMA.migrations[0])
    yield connection
    connection.close()


def store(database, executions):
    database.execute("DELETE FROM executions")
    write(database, executions)


def write(database, executions):
    for statement, values in upserts(to_rows(executions)):
        database.execute(statement, values)


def load(database, now=NOW, at=AT):
    reader = RowReader(now, at)
    return [reader.read(row) for row in database.execute(SELECT)]


def told(execution):
    """Every field but those that are made anew."""
    return {name: getattr(execution, name) for name in Execution.__struct_fields__ if name not in NOT_KEPT}


@given(st.lists(EXECUTIONS, min_size=1, max_size=4))
def test_every_field_comes_back_byte_for_byte(database, fields):
    executions = [make_execution(**field) for field in fields]
    store(database, executions)
    assert [told(execution) for execution in load(database)] == [told(execution) for execution in executions]


def test_what_changed_replaces_what_was_there(database):
    execution = make_execution()
    store(database, [execution])
    execution.published(AT)
    execution.status, execution.result, execution.ended_at = Status.SUCCEEDED, b"1", AT + 1
    execution.kept = True
    write(database, [execution])
    assert [told(found) for found in load(database)] == [told(execution)]


def test_many_rows_travel_in_bounded_pieces(database):
    executions = [make_execution() for _ in range(128 + 32 + 1)]
    assert [len(values) for _, values in upserts(to_rows(executions))] == [768, 192, 6]
    store(database, executions)
    assert [found.execution_id for found in load(database)] == [one.execution_id for one in executions]


def test_rows_are_deleted_by_id(database):
    executions = [make_execution() for _ in range(4)]
    store(database, executions)
    database.execute(DELETE, (encode_ids([executions[1].execution_id, executions[2].execution_id]),))
    assert [found.execution_id for found in load(database)] == [
        executions[0].execution_id,
        executions[3].execution_id,
    ]


def test_one_that_cannot_be_told_keeps_no_other_from_the_disk(database):
    good, bad = make_execution(), make_execution(requested_by="\ud800")
    store(database, [bad, good])
    assert [found.execution_id for found in load(database)] == [good.execution_id]


@pytest.mark.parametrize(
    "change",
    [
        "status = 'SUCCEEDED'",
        "head = replace(head, '24', '25')",
        "head = ''",
        "state = replace(state, '1', '2')",
        "state = '{}'",
        "head_check = head_check + 1",
        "state_check = 0",
        "execution_id = '0' || execution_id",
    ],
)
def test_a_value_that_was_changed_behind_our_back_is_refused(database, change):
    store(database, [make_execution(result=b"1"), make_execution()])
    database.execute(f"UPDATE executions SET {change}")
    with pytest.raises(ValueError, match="not as it was written"):
        load(database)


def test_names_are_shared_between_executions(database):
    store(database, [make_execution(requested_by="ann") for _ in range(2)])
    one, other = load(database)
    assert one.thing is other.thing
    assert one.action is other.action
    assert one.requested_by is other.requested_by


# Deadlines go on by wall time.


@pytest.mark.parametrize(
    ("later", "left"),
    [
        (0, 30),
        (10, 20),
        (29.5, 0.5),
        (40, -10),  # expired while the broker was away
        (86_400, 30 - 86_400),  # or the clock was set forward
        (-86_400, 30),  # set back: never more than it had at first
    ],
)
def test_a_deadline_goes_on_by_wall_time(database, later, left):
    store(database, [make_execution(ttl=30)])
    (found,) = load(database, now=5.0, at=AT + later)
    assert found.deadline == pytest.approx(5.0 + left)
    assert found.cancel_deadline is None


@pytest.mark.parametrize(("later", "left"), [(4, 6), (86_400, 10 - 86_400), (-86_400, 10)])
def test_so_does_the_grace_of_a_cancel(database, later, left):
    execution = make_execution(ttl=604_800, published_at=AT)
    execution.cancel(NOW, AT, 10.0)
    store(database, [execution])
    (found,) = load(database, now=5.0, at=AT + later)
    assert found.cancel_deadline == pytest.approx(5.0 + left)
