"""What is remembered, and what is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thingctl_agent.core.history import (
    KEPT_ALWAYS,
    REMEMBERED_SECONDS,
    Accepted,
    Answered,
    Cleared,
    History,
    Kept,
    Opened,
    Started,
)
from thingctl_agent.core.outcome import succeeded
from thingctl_protocol.messages import decode_response


def answered(history, name, payload=b"x", expires=100.0, *, cleared=True):
    history.apply(Accepted(name, "a", b"{}", expires - 60, 60.0, None))
    history.apply(Answered(name, expires, payload))
    if cleared:
        history.apply(Cleared(name))


def test_the_oldest_acknowledged_are_forgotten_beyond_the_number():
    history = History(remembered_max=150)
    for i in range(200):
        answered(history, f"e{i}")
    assert len(history) == 150
    assert history.get("e49") is None
    assert history.get("e50") is not None


def test_what_is_not_acknowledged_is_never_forgotten():
    history = History(remembered_max=1, remembered_bytes_max=1)
    for i in range(300):
        answered(history, f"e{i}", b"x" * 1000, cleared=False)
    assert len(history.unacknowledged()) == 300


def test_beyond_the_bytes_the_status_remains():
    history = History(remembered_bytes_max=3000)
    for i in range(5):
        answered(history, f"e{i}", succeeded("x" * 1000).encode())
    assert len(history.get("e4").response) > 1000
    slim = decode_response(history.get("e0").response)
    assert slim.status == "SUCCEEDED"
    assert slim.status_reason.reason_code == "RESULT_FORGOTTEN"


def test_the_old_are_forgotten_by_the_brokers_clock_but_for_the_last_hundred():
    history = History()
    for i in range(KEPT_ALWAYS + 50):
        answered(history, f"e{i}")
    answered(history, "new", expires=100 + REMEMBERED_SECONDS + 1000)
    assert len(history) == KEPT_ALWAYS
    assert history.get("new") is not None


def test_a_terminal_status_never_changes():
    history = History()
    answered(history, "e1", b"first", cleared=False)
    history.apply(Answered("e1", 1.0, b"second"))
    history.apply(Started("e1", 2))
    assert history.get("e1").response == b"first"
    assert history.get("e1").attempt == 0


def test_what_is_not_durable_is_not_in_a_snapshot():
    history = History()
    history.apply(Accepted("e1", "a", b"{}", 1.0, 1.0, None), durable=False)
    answered(history, "e2")
    assert [r.execution_id for r in history.snapshot() if not isinstance(r, Opened)] == ["e2", "e2"]


names = st.sampled_from(["e1", "e2", "e3"])


@given(
    st.lists(
        st.one_of(
            st.builds(
                Accepted, names, names, st.binary(max_size=3), st.floats(1, 9), st.floats(1, 9), st.none()
            ),
            st.builds(Started, names, st.integers(1, 3)),
            st.builds(Kept, names, st.binary(max_size=3)),
            st.builds(Answered, names, st.floats(1, 9), st.binary(min_size=1, max_size=3)),
            st.builds(Cleared, names),
            st.builds(Opened, names),
        ),
        max_size=30,
    )
)
def test_a_snapshot_makes_the_same_history(records):
    first = History()
    for record in records:
        first.apply(record)
    second = History()
    for record in first.snapshot():
        second.apply(record)

    def state(history):
        return {
            i: (e.accepted, e.attempt if e.response is None else 0, e.kept, e.response, e.cleared)
            for i, e in history._entries.items()
        }

    assert state(first) == state(second)
    assert first.boot_id == second.boot_id
