"""What keeps the registry."""

import asyncio
import sqlite3
import stat

import pytest

from support.waits import eventually
from thingctl_broker import registry_store
from thingctl_broker.errors import NotKept
from thingctl_broker.registry import ThingRegistry
from thingctl_broker.registry_store import REGISTRY_FILE, RegistryError, RegistryStore
from thingctl_broker.things import Definition, ThingType


class Kept:
    """A registry with its store, opened again as often as one likes."""

    def __init__(self, directory):
        self.registry = ThingRegistry(changed=self._changed)
        self.store = RegistryStore(directory, self.registry.record)
        self.registry.restore(self.store.load())
        self.store.start()

    def _changed(self, kept, name):
        self.store.changed(kept, name)


async def test_what_is_kept_is_there_again(tmp_path):
    one = Kept(tmp_path)
    one.registry.put_type(ThingType("light"))
    one.registry.define("lamp", Definition("light", ("hall",)), 1.0)
    one.registry.define("gone", Definition(), 1.0)
    await one.store.kept()
    one.registry.remove("gone")
    await one.store.kept()
    one.store.close()
    two = Kept(tmp_path)
    assert [thing.name for thing in two.registry] == ["lamp"]
    assert two.registry.get("lamp").definition == Definition("light", ("hall",))
    assert list(two.registry.types) == ["light"]
    await two.store.stop()


async def test_presence_follows_by_itself_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_store, "LAG", 0.01)
    one = Kept(tmp_path)
    one.registry.connected("lamp", "c1", 5.0)
    await eventually(lambda: not one.store._dirty)
    one.store.close()
    two = Kept(tmp_path)
    assert two.registry.get("lamp").client_id == "c1"
    monkeypatch.setattr(registry_store, "LAG", 1000.0)
    two.registry.connected("lamp", "c2", 6.0)
    await two.store.stop()
    three = Kept(tmp_path)
    assert three.registry.get("lamp").client_id == "c2"
    await three.store.stop()


async def test_many_changes_are_few_commits(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_store, "BATCH_MAX", 100)
    one = Kept(tmp_path)
    commits = []
    real = registry_store._write
    monkeypatch.setattr(registry_store, "_write", lambda c, r: commits.append(len(r)) or real(c, r))
    for i in range(250):
        one.registry.connected(f"t{i}", "", 1.0)
    await one.store.kept()
    assert sum(commits) == 500  # the thing and its presence
    assert max(commits) == 100
    await one.store.stop()
    two = Kept(tmp_path)
    assert len(two.registry) == 250
    await two.store.stop()


async def test_what_changes_during_a_commit_gathers_for_the_next(tmp_path, monkeypatch):
    """A thousand things that connect one after another are not a thousand commits."""
    monkeypatch.setattr(registry_store, "LAG", 0.01)
    one = Kept(tmp_path)
    loop = asyncio.get_running_loop()
    commits = []
    real = registry_store._write

    def write(connection, records):
        commits.append(len(records))
        if len(commits) == 1:
            monkeypatch.setattr(registry_store, "LAG", 1000.0)
            asyncio.run_coroutine_threadsafe(connect_another(), loop).result(10)
        real(connection, records)

    async def connect_another():
        one.registry.connected("late", "", 2.0)

    monkeypatch.setattr(registry_store, "_write", write)
    one.registry.connected("early", "", 1.0)
    await eventually(lambda: one.store._behind is not None and one.store._behind.done())
    assert commits == [2]
    assert {name for _, name in one.store._dirty} == {"late"}
    await one.store.stop()
    assert commits == [2, 2]


async def test_the_file_is_the_owners_alone(tmp_path):
    one = Kept(tmp_path / "data")
    one.registry.know("lamp", 0.0)
    await one.store.kept()
    for path in (tmp_path / "data").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    await one.store.stop()


async def test_it_can_be_backed_up_while_it_is_used(tmp_path):
    one = Kept(tmp_path)
    one.registry.define("lamp", Definition(), 1.0)
    await one.store.kept()
    reader = sqlite3.connect(tmp_path / REGISTRY_FILE)
    reader.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    reader.close()
    one.registry.define("lock", Definition(), 2.0)
    await one.store.stop()
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT name FROM records").fetchall() == [("lamp",)]
    copy.close()


async def test_a_second_broker_is_refused(tmp_path):
    one = Kept(tmp_path)
    with pytest.raises(RegistryError, match="another broker is using"):
        RegistryStore(tmp_path, one.registry.record)
    await one.store.stop()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 99", "a newer version of thingctl"),
        ("PRAGMA application_id = 7", "not a registry of thingctl"),
    ],
)
def test_a_database_that_is_not_ours_is_left_as_it_is(tmp_path, statement, words):
    path = tmp_path / REGISTRY_FILE
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RegistryError, match=words):
        RegistryStore(tmp_path, lambda *_: None)
    assert path.read_bytes() == before


def test_a_damaged_database_is_left_as_it_is(tmp_path):
    path = tmp_path / REGISTRY_FILE
    path.write_bytes(b"not a database, whatever its name says" * 100)
    before = path.read_bytes()
    with pytest.raises(RegistryError, match="left as it is"):
        RegistryStore(tmp_path, lambda *_: None)
    assert path.read_bytes() == before


async def test_files_that_were_taken_away_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_store, "LAG", 0.01)
    (tmp_path / "data").mkdir()
    one = Kept(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    one.registry.define("lamp", Definition(), 1.0)
    with pytest.raises(NotKept, match="removed or moved while it was used"):
        await one.store.kept()
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    await one.store.kept()
    await one.store.stop()
    two = Kept(tmp_path / "data")
    assert len(two.registry) == 1
    await two.store.stop()


async def test_what_cannot_be_written_is_said_and_tried_again(tmp_path, monkeypatch):
    one = Kept(tmp_path)
    real = registry_store._write
    broken = True

    def write(connection, records):
        if broken:
            raise sqlite3.OperationalError("database or disk is full")
        real(connection, records)

    monkeypatch.setattr(registry_store, "_write", write)
    monkeypatch.setattr(registry_store, "LAG", 0.01)
    one.registry.define("lamp", Definition(), 1.0)
    with pytest.raises(NotKept, match="disk is full"):
        await one.store.kept()
    await asyncio.sleep(0)
    broken = False
    await eventually(lambda: not one.store._dirty)
    await one.store.stop()
    two = Kept(tmp_path)
    assert len(two.registry) == 1
    await two.store.stop()
