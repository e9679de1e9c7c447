"""The journal on a real disk."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thingctl_agent.core.history import (
    Accepted,
    Answered,
    Cleared,
    Closed,
    History,
    Opened,
    Rebooting,
    Started,
)
from thingctl_agent.errors import JournalError
from thingctl_agent.runtime.journal import CallJournal

SMALL = 16 * 1024


def write(journal, record, *, flush=True):
    journal.history.apply(record)
    journal.append(record, flush=flush)


def accepted(name, params=b"{}"):
    return Accepted(name, "a", params, 1.7e9, 60.0, 5.0)


def crash(journal):
    """Let go of the file as a killed process does."""
    os.close(journal._file)
    os.close(journal._lock)


def known(journal):
    return {i: (e.attempt, e.response, e.cleared) for i, e in journal.history._entries.items()}


def test_a_new_journal_is_empty_and_preallocated(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    assert len(journal.history) == 0
    assert journal.trusted
    assert (tmp_path / "journal").stat().st_size == 2 * SMALL
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600
    journal.close()


def test_what_was_written_is_there_after_a_crash(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    journal.opened("boot-1")
    journal.history.boot_id = "boot-1"
    write(journal, accepted("e1"))
    write(journal, Started("e1", 1), flush=False)
    write(journal, accepted("e2"))
    write(journal, Answered("e2", 9.0, b"answer"))
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1")
    assert known(again) == {"e1": (1, None, False), "e2": (0, b"answer", False)}
    assert again.trusted
    assert not again.damage
    again.close()


def test_trust_ends_with_the_boot_unless_it_was_closed(tmp_path):
    def trusted(boot_id):
        journal = CallJournal(tmp_path / "journal", boot_id)
        journal.history.boot_id = boot_id
        journal.opened(boot_id)
        write(journal, accepted(f"in {boot_id}"))
        return journal, journal.trusted

    journal, _ = trusted("boot-1")
    crash(journal)
    journal, still = trusted("boot-1")
    assert still, "the process was killed, the kernel was not"
    crash(journal)
    journal, still = trusted("boot-2")
    assert not still, "the power may have gone"
    journal.close()
    journal, still = trusted("boot-3")
    assert still, "it was closed"
    journal.close()


def test_a_command_takes_two_flushes_and_less_than_two_and_a_half_kilobytes(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=256 * 1024)
    flushes, written, count = journal.flushes, journal.bytes_written, 250
    for i in range(count):
        name = f"0193448f-5d1c-7000-9b3c-{i:012}"
        write(journal, accepted(name, b'{"value":24}'))
        write(journal, Started(name, 1), flush=False)
        write(journal, Answered(name, 9.0, b'{"status":"SUCCEEDED","result":{"currentTemperature":24.0}}'))
        write(journal, Cleared(name), flush=False)
    assert (journal.flushes - flushes) / count < 2.02, "snapshots included"
    assert (journal.bytes_written - written) / count < 2.5 * 1024, "snapshots included"
    journal.close()


def test_it_flushes_when_it_is_told_to_and_only_then(tmp_path, monkeypatch):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    flushed = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    write(journal, Started("e1", 1), flush=False)
    assert flushed == []
    write(journal, accepted("e1"), flush=True)
    assert flushed == [journal._file]
    journal.close()


def test_it_goes_on_in_the_other_segment_and_stays_as_long_as_it_was(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    for i in range(300):
        write(journal, accepted(f"e{i}"))
        write(journal, Answered(f"e{i}", 9.0, b"x"))
        write(journal, Cleared(f"e{i}"), flush=False)
        if i % 37 == 0:
            before = known(journal)
            crash(journal)
            journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
            after = known(journal)
            assert set(before) <= set(after), "clearings that were put off may be lost"
    assert (tmp_path / "journal").stat().st_size <= 8 * SMALL
    journal.close()


def test_a_snapshot_that_does_not_fit_makes_the_file_grow(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    for i in range(8):
        write(journal, accepted(f"e{i}", b"x" * 5000))
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    assert len(again.history) == 8
    assert again.history.get("e7").accepted.params == b"x" * 5000
    write(again, accepted("e9"))
    again.close()


def test_a_record_longer_than_the_buffer_is_written(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    write(journal, accepted("e1", b"x" * 100_000))
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1")
    assert len(again.history.get("e1").accepted.params) == 100_000
    again.close()


def test_two_agents_cannot_share_one(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    with pytest.raises(JournalError, match="another agent uses"):
        CallJournal(tmp_path / "journal", "boot-1")
    journal.close()
    CallJournal(tmp_path / "journal", "boot-1").close()


def test_what_is_no_journal_is_set_aside_and_told(tmp_path):
    (tmp_path / "journal").write_bytes(b"hello" * 1000)
    journal = CallJournal(tmp_path / "journal", "boot-1")
    assert "none of its 5000 bytes" in journal.damage
    assert not journal.trusted
    assert (tmp_path / "journal.damaged").read_bytes() == b"hello" * 1000
    write(journal, accepted("e1"))
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1")
    assert not again.damage
    assert len(again.history) == 1
    again.close()


def test_closed_fits_even_when_the_segment_is_full(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    journal.history.boot_id = "boot-1"
    while journal._position < journal._active + SMALL:
        write(journal, Rebooting("e1", b"x"))
    journal.close()
    again = CallJournal(tmp_path / "journal", "boot-2", segment=SMALL)
    assert again.trusted
    again.close()


def test_where_direct_writing_is_not_offered_it_writes_through_the_cache(tmp_path, monkeypatch):
    opening = os.open

    def refuse(path, flags, *more):
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return opening(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    journal = CallJournal(tmp_path / "journal", "boot-1")
    write(journal, accepted("e1"))
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1")
    assert len(again.history) == 1
    again.close()


def test_a_directory_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        CallJournal(tmp_path / "no" / "journal", "boot-1")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(st.tuples(st.sampled_from("asrc"), st.integers(0, 5)), max_size=40),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_whatever_happens_to_the_file_the_agent_starts_and_nothing_is_made_up(tmp_path, events, damage, cut):
    path = tmp_path / "journal"
    for old in tmp_path.iterdir():
        old.unlink()
    journal = CallJournal(path, "boot-1", segment=SMALL)
    written = []
    for kind, i in events:
        name = f"e{i}"
        made = {
            "a": accepted(name),
            "s": Started(name, 1),
            "r": Answered(name, 9.0, b"x"),
            "c": Cleared(name),
        }[kind]
        write(journal, made, flush=kind in "ar")
        written.append(name)
    crash(journal)
    raw = bytearray(path.read_bytes())
    for place, value in damage:
        used = [i for i, byte in enumerate(raw) if byte]
        raw[used[int(place * (len(used) - 1))]] ^= value
    if cut is not None:
        raw = raw[: int(cut * len(raw))]
    path.write_bytes(raw)
    again = CallJournal(path, "boot-1", segment=SMALL)
    assert set(known(again)) <= set(written)
    write(again, accepted("new"))
    crash(again)
    third = CallJournal(path, "boot-1", segment=SMALL)
    assert not third.damage, "it was mended"
    assert third.history.get("new") is not None
    third.close()


def test_the_records_of_a_clean_end_are_in_the_file(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    write(journal, accepted("e1"))
    write(journal, Answered("e1", 9.0, b"x"))
    write(journal, Cleared("e1"), flush=False)
    journal.close()
    again = CallJournal(tmp_path / "journal", "boot-1")
    assert again.history.closed
    assert again.history.get("e1").cleared, "what was put off is written at the end"
    again.close()


def test_records_that_stand_for_no_execution_are_kept(tmp_path):
    journal = CallJournal(tmp_path / "journal", "boot-1")
    write(journal, Opened("boot-7"))
    write(journal, Closed())
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-7")
    assert again.history.boot_id == "boot-7"
    assert again.history.closed
    again.close()


# -- damage to any part of it, and tries that fail


@pytest.fixture(scope="module", params=["killed", "closed", "compacted a moment ago"])
def used(request, tmp_path_factory):
    """The files of a journal that has gone on in its other segment."""
    folder = tmp_path_factory.mktemp("used")
    journal = CallJournal(folder / "journal", "boot-1", segment=SMALL)
    journal.history.boot_id = "boot-1"
    journal.opened("boot-1")
    count = 0
    while journal._identity.generation < 4 or (
        request.param != "compacted a moment ago" and journal._position < journal._active + SMALL // 2
    ):
        write(journal, accepted(f"e{count}", b"x" * (count % 7 * 100)))
        write(journal, Started(f"e{count}", 1), flush=False)
        if count % 3:
            write(journal, Answered(f"e{count}", 9.0, b"y" * 100))
            write(journal, Cleared(f"e{count}"), flush=False)
        count += 1
        if count % 40 == 0:
            journal.history = _forgetting(journal.history)
    journal.close() if request.param == "closed" else crash(journal)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _forgetting(history):
    """The last executions only, so that a snapshot fits its segment."""
    fresh = History(remembered_max=5)
    fresh.boot_id = history.boot_id
    for record in list(history.snapshot())[-12:]:
        fresh.apply(record)
    return fresh


def _reopened(folder, files, boot_id="boot-1"):
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    journal = CallJournal(folder / "journal", boot_id, segment=SMALL)
    crash(journal)
    return journal, {i: (attempt, response) for i, (attempt, response, _) in known(journal).items()}


@pytest.mark.parametrize("boot_id", ["boot-1", "boot-2"])
@pytest.mark.parametrize("block", [512, 4096])
@pytest.mark.parametrize("how", ["zeroed", "flipped", "garbage"])
def test_damage_of_any_one_sector_is_noticed(used, tmp_path, block, how, boot_id):
    files = used
    whole, knew = _reopened(tmp_path, files, boot_id)
    assert not whole.damage
    assert knew
    raw = files["journal"]
    for at in range(0, len(raw), block):
        part = raw[at : at + block]
        damaged = {
            "zeroed": bytes(block),
            "flipped": part[:20] + bytes([part[20] ^ 4]) + part[21:],
            "garbage": bytes(i * 7 % 251 for i in range(block)),
        }[how]
        journal, knows = _reopened(
            tmp_path, files | {"journal": raw[:at] + damaged + raw[at + block :]}, boot_id
        )
        if knows != knew:
            assert not journal.trusted, f"at {at}"
            # What was not flushed may be gone after a power cut: that is no damage.
            assert journal.damage or (boot_id == "boot-2" and set(knows) == set(knew)), f"at {at}"


@pytest.mark.parametrize("left", [0, 512, 5000])
def test_a_journal_that_was_cut_off_or_removed_is_told_of(used, tmp_path, left):
    files = used
    cut, _ = _reopened(tmp_path, files | {"journal": files["journal"][:left]})
    assert cut.damage
    assert not cut.trusted
    gone, _ = _reopened(tmp_path, {name: raw for name, raw in files.items() if name != "journal"})
    assert gone.damage == "it is missing, though it was here before"
    assert not gone.trusted


def test_a_journal_of_an_older_version_is_read_and_noted_from_then_on(used, tmp_path):
    files = used
    _, knew = _reopened(tmp_path, files)
    journal, knows = _reopened(tmp_path, files | {"journal.lock": b""})
    assert knows == knew
    assert not journal.damage
    assert (tmp_path / "journal.lock").read_bytes()
    first, _ = _reopened(tmp_path, {"journal": b"", "journal.lock": b""})
    assert not first.damage, "an older version left an empty file where the disk was full"


def test_a_try_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                CallJournal(tmp_path / "journal", "boot-1")
            assert [path.name for path in tmp_path.iterdir()] == ["journal.lock"]
    journal = CallJournal(tmp_path / "journal", "boot-1")
    assert not journal.damage
    assert journal.trusted
    journal.close()


def test_a_new_file_whose_name_cannot_be_flushed_is_the_one_that_is_written(tmp_path, monkeypatch):
    flush, failed = os.fsync, []

    def fail_directories(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            failed.append(descriptor)
            raise OSError(errno.EIO, "Input/output error")
        flush(descriptor)

    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_directories)
        for i in range(20):  # more than the segment takes: it grows
            try:
                write(journal, accepted(f"e{i}", b'"%b"' % (b"x" * 1000)))
            except OSError:
                break
        with pytest.raises(OSError, match="Input/output"):
            write(journal, accepted("still not durable"))
    assert len(failed) == 2
    write(journal, accepted("after"))
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    assert not again.damage
    assert "after" in known(again)
    again.close()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_record_that_was_refused_is_not_found_after_a_crash(tmp_path, monkeypatch, call):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    write(journal, accepted("before"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full_disk)
        with pytest.raises(OSError, match="No space"):
            write(journal, accepted("refused"))
        assert journal.is_behind
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    assert set(known(again)) == {"before"}
    assert not again.damage
    again.close()


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
@pytest.mark.parametrize("by", ["the next record", "itself"])
def test_an_answer_that_could_not_be_written_is_written_later(tmp_path, monkeypatch, call, by):
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    write(journal, accepted("e1"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full_disk)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                write(journal, Answered("e1", 9.0, b"done"))
        with pytest.raises(OSError, match="No space"):
            journal.catch_up()
        assert journal.is_behind
    if by == "itself":
        journal.catch_up()
    else:
        write(journal, accepted("e2"))
    assert not journal.is_behind
    crash(journal)
    again = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    assert known(again)["e1"] == (0, b"done", False)
    assert not again.damage
    again.close()


def test_a_damaged_journal_is_not_lost_when_the_new_one_cannot_be_made(used, tmp_path, monkeypatch):
    files = used
    raw = files["journal"]
    damaged = files | {"journal": raw[:-100] + bytes(100) + b"x"}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            _reopened(tmp_path, damaged)
    assert (tmp_path / "journal").read_bytes() == damaged["journal"]
    journal = CallJournal(tmp_path / "journal", "boot-1", segment=SMALL)
    assert journal.damage
    assert (tmp_path / "journal.damaged").read_bytes() == damaged["journal"]
    journal.close()


def test_what_a_killed_try_left_is_removed(tmp_path):
    CallJournal(tmp_path / "journal", "boot-1", segment=SMALL).close()
    (tmp_path / "journal.new").write_bytes(b"x" * 1000)
    CallJournal(tmp_path / "journal", "boot-1", segment=SMALL).close()
    assert not (tmp_path / "journal.new").exists()
