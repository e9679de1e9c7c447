"""What an earlier version wrote is read: its databases are in ``tests/formats`` as SQL text."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.storage.postgres.stores import a_store
from formats.make import plain
from thingctl_broker.storage.sqlite.journal import FILE, SqliteJournal

FORMATS = Path(__file__).parent.parent.parent / "formats"
KEPT = json.loads((FORMATS / "executions.json").read_text(encoding="utf-8"))


def test_the_fixture_has_each_field_with_a_value():
    empty = (None, "", 0, False)
    never = {name for name in KEPT[0] if all(one[name] in empty for one in KEPT)}
    assert not never
    assert {one["status"] for one in KEPT} >= {
        "SENT",
        "IN_PROGRESS",
        "SUCCEEDED",
        "FAILED",
        "REJECTED",
        "TIMED_OUT",
        "CANCELED",
    }


async def test_the_journal_of_an_earlier_version_is_read_and_written_again(tmp_path):
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript((FORMATS / "executions.sql").read_text(encoding="utf-8"))
    for _ in range(2):
        journal = SqliteJournal(tmp_path)
        found = list(journal.recover(0.0, 1_790_000_000.0))
        assert [known(plain(execution)) for execution in found] == KEPT
        await journal.start()
        for execution in found:
            journal.record(execution)
        await journal.stop()


async def test_the_tables_of_an_earlier_version_are_read(postgres, postgres_url):
    database = postgres_url.rpartition("/")[2]
    postgres.psql((FORMATS / "postgres.sql").read_text(encoding="utf-8"), database)
    async with a_store(postgres_url) as store:
        found = {one["execution_id"]: await store.executions.get(one["execution_id"]) for one in KEPT}
    assert [known(plain(found[one["execution_id"]])) for one in KEPT] == KEPT


def known(fields: dict) -> dict:
    """The fields that the earlier version had."""
    return {name: fields[name] for name in KEPT[0]}


@pytest.mark.parametrize("name", ["executions.sql", "postgres.sql"])
def test_the_fixtures_are_text_of_their_own(name):
    text = (FORMATS / name).read_text(encoding="utf-8")
    assert "\\restrict" not in text
    assert text.count("INSERT INTO") >= len(KEPT)
