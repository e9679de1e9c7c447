"""What keeps the registry."""

import asyncio
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support.waits import eventually
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.errors import NotKept, ThingExists, UnknownThing, UnknownThingType
from thingctl_broker.storage.sqlite import registry
from thingctl_broker.storage.sqlite.registry import REGISTRY_FILE, SCHEMA, DatabaseFileError, RegistryStore
from thingctl_broker.testing import service_with_fakes
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.service import ThingService
from thingctl_broker.things.thing import Definition, ThingType


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
    monkeypatch.setattr(registry, "LAG", 0.01)
    one = Kept(tmp_path)
    one.registry.connected("lamp", "c1", 5.0)
    await eventually(lambda: not one.store._dirty)
    one.store.close()
    two = Kept(tmp_path)
    assert two.registry.get("lamp").client_id == "c1"
    monkeypatch.setattr(registry, "LAG", 1000.0)
    two.registry.connected("lamp", "c2", 6.0)
    await two.store.stop()
    three = Kept(tmp_path)
    assert three.registry.get("lamp").client_id == "c2"
    await three.store.stop()


async def test_many_changes_are_few_commits(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "BATCH_MAX", 100)
    one = Kept(tmp_path)
    commits = []
    real = registry._write
    monkeypatch.setattr(registry, "_write", lambda c, r: commits.append(len(r)) or real(c, r))
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
    monkeypatch.setattr(registry, "LAG", 0.01)
    one = Kept(tmp_path)
    loop = asyncio.get_running_loop()
    commits = []
    real = registry._write

    def write(connection, records):
        commits.append(len(records))
        if len(commits) == 1:
            monkeypatch.setattr(registry, "LAG", 1000.0)
            asyncio.run_coroutine_threadsafe(connect_another(), loop).result(10)
        real(connection, records)

    async def connect_another():
        one.registry.connected("late", "", 2.0)

    monkeypatch.setattr(registry, "_write", write)
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
    with pytest.raises(DatabaseFileError, match="another broker is using"):
        RegistryStore(tmp_path, one.registry.record)
    await one.store.stop()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"PRAGMA user_version = 99; PRAGMA application_id = {SCHEMA.application_id}", "a newer thingctl"),
        ("PRAGMA application_id = 7", "not of thingctl"),
    ],
)
def test_a_database_that_is_not_ours_is_left_as_it_is(tmp_path, statement, words):
    path = tmp_path / REGISTRY_FILE
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseFileError, match=words):
        RegistryStore(tmp_path, lambda *_: None)
    assert path.read_bytes() == before


@pytest.mark.parametrize("begun", ["PRAGMA user_version = 0", "PRAGMA journal_mode = WAL"])
def test_what_a_start_cut_short_has_left_is_made_anew(tmp_path, begun):
    """Versions before this one made the file at its place."""
    connection = sqlite3.connect(tmp_path / REGISTRY_FILE)
    connection.execute(begun)
    connection.close()
    store = RegistryStore(tmp_path, lambda *_: None)
    assert list(store.load()) == []
    store.close()


def test_a_damaged_database_is_left_as_it_is(tmp_path):
    path = tmp_path / REGISTRY_FILE
    path.write_bytes(b"not a database, whatever its name says" * 100)
    before = path.read_bytes()
    with pytest.raises(DatabaseFileError, match="left as it is"):
        RegistryStore(tmp_path, lambda *_: None)
    assert path.read_bytes() == before


async def test_files_that_were_taken_away_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "LAG", 0.01)
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
    real = registry._write
    broken = True

    def write(connection, records):
        if broken:
            raise sqlite3.OperationalError("database or disk is full")
        real(connection, records)

    monkeypatch.setattr(registry, "_write", write)
    monkeypatch.setattr(registry, "LAG", 0.01)
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


class Room(Kept):
    """The same with a directory, whose operations end with what they were answered."""

    def __init__(self, directory):
        super().__init__(directory)
        service, _, _ = service_with_fakes(things=())
        operations = EmbeddedOperations(service)
        service.things = self.registry
        self.directory = ThingService(SimpleOperations(operations, self.registry), Quick(), self.store)


class SimpleOperations:
    """Operations on things alone."""

    def __init__(self, operations, registry):
        self.things = registry
        self.unix = operations.unix
        self.withdraw = operations.withdraw


class Quick:
    """Passwords whose hashes are quick to make."""

    async def hash(self, password):
        return f"hash of {password}"


async def attempt(directory, what, name, number):
    password = f"password number {number}"
    match what:
        case "add":
            await directory.add(name, Definition(tags=(f"t{number}",)), password)
        case "put":
            await directory.put(name, Definition(description=f"{number}"))
        case "patch":
            await directory.patch(name, lambda known: replace(known, tags=(f"p{number}",)))
        case "password":
            await directory.new_password(name, password)
        case "disarm":
            await directory.remove_password(name)
        case "remove":
            await directory.remove(name)
        case "type":
            await directory.put_type(ThingType(name, f"{number}"))
        case "no type":
            await directory.remove_type(name)


def seen(registry):
    things = {thing.name: (thing.definition, thing.hashes(0.0)) for thing in registry}
    return things, dict(registry.types)


def one_more(model, what, name, number):
    """What a change that was answered 2xx makes of the model."""
    things, types = model
    definition, hashes = things.get(name, (Definition(), ()))
    given = f"hash of password number {number}"
    match what:
        case "add":
            things[name] = (Definition(tags=(f"t{number}",)), (given,))
        case "put":
            things[name] = (Definition(description=f"{number}"), hashes)
        case "patch":
            things[name] = (replace(definition, tags=(f"p{number}",)), hashes)
        case "password":
            things[name] = (definition, (given, *hashes[-1:]))
        case "disarm":
            things[name] = (definition, ())
        case "remove":
            del things[name]
        case "type":
            types[name] = ThingType(name, f"{number}")
        case "no type":
            del types[name]


ATTEMPT = st.tuples(
    st.sampled_from(["add", "put", "patch", "password", "disarm", "remove", "type", "no type"]),
    st.sampled_from(["a", "b"]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ATTEMPT, max_size=15))
def test_what_was_answered_is_there_after_a_crash_and_what_was_refused_is_not(steps):
    async def run(folder):
        room, model = Room(folder), ({}, {})
        put = room.store._put
        for number, (what, name, is_full) in enumerate(steps):
            room.store._put = full if is_full else put
            room.registry.seen(name, float(number))  # presence waits beside it
            try:
                await attempt(room.directory, what, name, number)
            except (NotKept, ThingExists, UnknownThing, UnknownThingType):
                pass
            else:
                one_more(model, what, name, number)
            assert seen(room.registry) == model
        room.store.close()
        again = Kept(folder)
        assert seen(again.registry) == model
        again.store.close()

    def full(records):
        raise sqlite3.OperationalError("database or disk is full")

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def fill(path):
    """Write until there is no room."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "thingctl-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted (run the tests as root to have one)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_on_a_disk_that_is_full_nothing_changes_until_there_is_room(small_disk):
    room = Room(small_disk)
    await room.directory.add("cam", Definition(), "password of the camera")
    filler = small_disk / "filler"
    fill(filler)
    before, refused = seen(room.registry), 0
    for number in range(200):  # SQLite's log has room for some
        name = f"thing-{number}-{'x' * 60}"
        try:
            await room.directory.add(name, Definition(description="x" * 1000), "a password, a long one")
        except NotKept:
            refused += 1
            assert name not in room.registry
        else:
            before = seen(room.registry)
    assert refused
    for what in ("password", "patch", "remove", "disarm"):
        with suppress(NotKept):
            await attempt(room.directory, what, "cam", 1)
            before = seen(room.registry)
        assert seen(room.registry) == before
    filler.unlink()
    await room.directory.add("late", Definition())
    expected = seen(room.registry)
    room.store.close()
    again = Kept(small_disk)
    assert seen(again.registry) == expected
    again.store.close()
