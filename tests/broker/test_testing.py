"""The fakes that ship do what they say."""

from broker_support import AT, NOW, HeldJournal, make_execution
from thingctl_broker.testing import InMemoryJournal, InMemoryLink, ManualClock, Published, service_with_fakes


def test_a_manual_clock_stands_still_until_it_is_moved():
    clock = ManualClock(monotonic=5.0, unix=100.0)
    assert (clock.monotonic(), clock.unix()) == (5.0, 100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.unix()) == (7.5, 102.5)


def test_a_jump_moves_the_wall_clock_alone():
    clock = ManualClock(monotonic=5.0, unix=100.0)
    clock.jump(-60.0)
    assert (clock.monotonic(), clock.unix()) == (5.0, 40.0)


def test_a_link_in_memory_remembers_what_would_have_gone_out():
    link = InMemoryLink()
    assert link.publish_request("lamp", "1", b"{}", again=True) is True
    link.publish_cancel("lamp", "1")
    assert link.published == [Published("lamp", "1", b"{}", again=True)]
    assert link.canceled == [("lamp", "1")]
    link.acknowledging = False
    assert link.publish_request("lamp", "2", b"{}", again=False) is False


def test_a_service_with_fakes_knows_its_things_and_that_none_is_there():
    journal = HeldJournal()
    service, link, _clock = service_with_fakes(["a", "b"], journal)
    assert [thing.name for thing in service.things] == ["a", "b"]
    assert not any(thing.online for thing in service.things)
    assert service.journal is journal
    service.reachable("a")
    service.send("a", "x")
    assert link.published == []


def test_a_journal_in_memory_keeps_what_is_committed_and_calls_back_in_order():
    journal, called = InMemoryJournal(), []
    journal.then(lambda: called.append("idle"))
    journal.record(one := make_execution())
    journal.then(lambda: called.append("one"))
    journal.take()
    journal.record(two := make_execution())
    journal.then(lambda: called.append("two"))
    assert called == ["idle"]
    journal.commit()  # what was taken, and no more
    assert (called, list(journal.rows)) == (["idle", "one"], [one.execution_id])
    journal.commit()
    assert (called, list(journal.rows)) == (["idle", "one", "two"], [one.execution_id, two.execution_id])
    assert journal.idle
    journal.forget(one.execution_id)
    journal.commit()
    assert [found.execution_id for found in journal.recover(NOW, AT)] == [two.execution_id]


def test_a_journal_in_memory_keeps_executions_as_they_stood_when_they_were_taken():
    journal = InMemoryJournal()
    journal.record(execution := make_execution())
    journal.take()
    execution.published(AT)
    journal.commit()
    assert next(journal.recover(NOW, AT)).attempts == 0


def test_a_journal_in_memory_fails_as_a_full_disk_does():
    journal, called = InMemoryJournal(), []
    journal.record(stays := make_execution())
    journal.record(goes := make_execution())
    journal.then(
        lambda: called.append("kept"), lambda: (called.append("lost"), journal.forget(goes.execution_id))
    )
    journal.then(lambda: called.append("kept in the end"))
    journal.take()
    journal.fail()
    assert (called, journal.accepting, journal.rows) == (["lost"], False, {})
    journal.commit()
    assert (called, journal.accepting) == (["lost", "kept in the end"], True)
    assert list(journal.rows) == [stays.execution_id]


def test_a_journal_in_memory_may_crash_between_the_disk_and_the_telling():
    journal, called = InMemoryJournal(), []
    journal.record(execution := make_execution())
    journal.then(lambda: called.append("kept"))
    journal.take()
    journal.write()
    assert (called, list(journal.rows)) == ([], [execution.execution_id])
