"""A journal that could not be opened is tried again, neither too often nor too seldom."""

from __future__ import annotations

import errno
import os

import pytest
from structlog.testing import capture_logs

from thingctl_agent.errors import ConfigError
from thingctl_agent.runtime.journal import CallJournal
from thingctl_agent.runtime.journal_opener import RETRY_AFTER, RETRY_EVERY, JournalOpener


class Disk:
    """A disk that is full or not, and a clock."""

    def __init__(self, monkeypatch):
        self.full = False
        self.now = 500.0
        self.tries = 0
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._sync)

    def _sync(self, descriptor):
        self.tries += 1
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._fsync(descriptor)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture
def opener(disk, tmp_path):
    return JournalOpener(str(tmp_path / "state"), "boot-1", lambda: disk.now)


def test_a_journal_that_cannot_be_made_is_made_when_the_disk_has_room(disk, opener, tmp_path):
    disk.full = True
    assert opener.open() is None
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["journal.lock"]
    disk.full = False
    disk.now += RETRY_AFTER
    journal = opener.open_for_a_command()
    assert journal is not None
    journal.close()


def test_commands_try_at_most_once_a_second(disk, opener):
    disk.full = True
    opener.open()
    for _ in range(100):
        disk.now += 0.1
        assert opener.open_for_a_command() is None
    assert 8 <= disk.tries <= 11
    assert opener.retry_at == pytest.approx(disk.now + RETRY_EVERY, abs=RETRY_AFTER)


def test_the_same_reason_is_logged_once(disk, opener):
    disk.full = True
    with capture_logs() as logs:
        opener.open()
        for _ in range(5):
            opener.open_again()
        disk.full = False
        opener.open_again().close()
    assert [log["log_level"] for log in logs] == ["warning", "info"]


def test_what_its_owner_can_mend_is_an_error_at_the_start_and_only_then(disk, tmp_path):
    (tmp_path / "file").write_text("")
    opener = JournalOpener(str(tmp_path / "file" / "state"), "boot-1", lambda: disk.now)
    with pytest.raises(ConfigError, match="cannot be used"):
        opener.open()
    assert opener.open_again() is None


def test_a_journal_that_another_agent_took_in_the_meantime_is_left_to_it(disk, opener, tmp_path):
    disk.full = True
    opener.open()
    disk.full = False
    other = CallJournal(tmp_path / "state" / "journal", "boot-1")
    assert opener.open_again() is None
    other.close()
    opener.open_again().close()
