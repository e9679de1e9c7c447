"""Records by kind and key: what was kept is there after a crash, and what was deleted is not."""

import asyncio
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.waits import eventually
from thingctl_broker.storage.sqlite import record_store
from thingctl_broker.storage.sqlite.database import DatabaseFileError
from thingctl_broker.storage.sqlite.record_store import ROWS, SqliteRecords


def kept_in(store, kind=1):
    return dict(store.load(kind))


async def on_disk(store):
    """Wait until everything so far is on the disk."""
    kept = asyncio.Event()
    store.then(kept.set)
    await asyncio.wait_for(kept.wait(), 10)


async def test_records_are_there_again_by_kind_and_in_the_order_of_their_keys(tmp_path):
    store = SqliteRecords(tmp_path / "mqtt.db")
    await store.start()
    for key in (b"b", b"a", b"c"):
        store.add(1, key, key * 2)
    store.put(2, b"a", b"other kind")
    store.put(1, b"b", b"replaced")
    store.delete(1, b"c")
    await store.stop()
    again = SqliteRecords(tmp_path / "mqtt.db")
    assert list(again.load(1)) == [(b"a", b"aa"), (b"b", b"replaced")]
    assert list(again.load(2)) == [(b"a", b"other kind")]
    assert stat.S_IMODE((tmp_path / "mqtt.db").stat().st_mode) == 0o600


async def test_a_record_that_leaves_before_its_batch_costs_nothing(tmp_path):
    store = SqliteRecords(tmp_path / "mqtt.db")
    await store.start()
    store.add(1, b"a", b"1")
    store.put(1, b"a", b"2")
    store.delete(1, b"a")
    await on_disk(store)
    assert (store.commits, store.waiting) == (0, 0)
    await store.stop()


async def test_what_gathers_during_a_commit_is_one_batch_of_any_size(tmp_path):
    store = SqliteRecords(tmp_path / "mqtt.db")
    await store.start()
    store.add(1, b"first", b"")
    await asyncio.sleep(0)
    for number in range(3 * ROWS + 1):
        store.add(1, number.to_bytes(8), b"x")
    await on_disk(store)
    assert store.commits == 2
    assert len(kept_in(store)) == 3 * ROWS + 2
    for number in range(3 * ROWS + 1):
        store.delete(1, number.to_bytes(8))
    await on_disk(store)
    assert kept_in(store) == {b"first": b""}
    await store.stop()


async def test_with_an_interval_nothing_waits_for_the_disk(tmp_path):
    store = SqliteRecords(tmp_path / "mqtt.db", interval=0.05)
    await store.start()
    store.add(1, b"a", b"1")
    called = []
    store.then(lambda: called.append(store.commits))
    assert called == [0]
    await eventually(lambda: store.commits == 1)
    store.put(1, b"b", b"2")
    await store.stop()
    assert kept_in(store) == {b"a": b"1", b"b": b"2"}


async def test_what_cannot_be_kept_waits_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(record_store, "RETRY_INTERVAL", 0.01)
    data, away = tmp_path / "data", tmp_path / "away"
    data.mkdir()
    store = SqliteRecords(data / "mqtt.db")
    await store.start()
    store.add(1, b"old", b"1")
    await on_disk(store)
    data.rename(away)
    store.delete(1, b"old")
    store.add(1, b"lost?", b"2")
    called = []
    store.then(lambda: called.append("kept"))
    await asyncio.sleep(0)  # the batch is taken
    store.put(1, b"lost?", b"3")
    await eventually(lambda: not store.accepting)
    assert called == []
    away.rename(data)
    await eventually(lambda: called)
    assert store.accepting
    await on_disk(store)
    assert kept_in(store) == {b"lost?": b"3"}
    await store.stop()


async def test_a_stop_ends_although_nothing_can_be_kept(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    store = SqliteRecords(data / "mqtt.db")
    await store.start()
    data.rename(tmp_path / "away")
    store.add(1, b"a", b"1")
    await asyncio.wait_for(store.stop(), 10)
    assert not store.accepting


async def test_a_callback_that_fails_does_not_keep_the_others_waiting(tmp_path):
    store = SqliteRecords(tmp_path / "mqtt.db")
    await store.start()
    store.add(1, b"a", b"1")
    store.then(lambda: 1 // 0)
    await on_disk(store)
    await store.stop()


@pytest.mark.parametrize("content", [b"", b"no database, but long enough to be looked at" * 99])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "mqtt.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseFileError, match=r"mqtt\.db is damaged .* left as it is"):
        SqliteRecords(path)
    assert path.read_bytes() == content


class Crashing:
    """A store beside a dict, whose directory goes and comes back."""

    def __init__(self, folder):
        self.data, self.away = folder / "data", folder / "away"
        self.data.mkdir()
        self.store = SqliteRecords(self.data / "mqtt.db")
        self.states = [{}]
        """What a dict has after each change."""
        self.kept = 0
        """How many changes are on the disk, as far as ``then`` has said."""

    async def do(self, step, key=b"", number=None):
        match step:
            case "change":
                self.change(key, None if number is None else str(number).encode())
            case "turn":
                await asyncio.sleep(0)
            case "wait":
                await asyncio.sleep(0.003)
            case _:
                getattr(self, step)()

    def change(self, key, value):
        state = dict(self.states[-1])
        if value is None:
            self.store.delete(1, key)
            state.pop(key, None)
        elif key in state:
            self.store.put(1, key, value)
            state[key] = value
        else:
            self.store.add(1, key, value)
            state[key] = value
        self.states.append(state)

    def then(self):
        count = len(self.states) - 1

        def kept():
            self.kept = max(self.kept, count)

        self.store.then(kept)

    def toggle(self):
        here, there = (self.data, self.away) if self.data.exists() else (self.away, self.data)
        here.rename(there)

    def check(self):
        """A crash now would leave the state after some change, none earlier than was told."""
        if self.data.exists():
            kept = self.kept  # before the file is read
            assert kept_in(self.store) in self.states[kept:]


STEP = st.one_of(
    st.tuples(st.just("change"), st.sampled_from([b"a", b"b", b"c"]), st.none() | st.integers(0, 99)),
    st.tuples(st.sampled_from(["then", "turn", "wait", "toggle", "check"])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_a_crash_leaves_at_least_what_was_kept_and_never_half_a_batch(steps):
    async def run(folder):
        one = Crashing(folder)
        await one.store.start()
        for step, *arguments in steps:
            await one.do(step, *arguments)
        if not one.data.exists():
            one.toggle()
        one.check()
        one.then()
        await eventually(lambda: one.kept == len(one.states) - 1)
        one.check()
        await one.store.stop()
        assert kept_in(SqliteRecords(one.data / "mqtt.db")) == one.states[-1]

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(record_store, "RETRY_INTERVAL", 0.002)
        asyncio.run(run(Path(folder)))
