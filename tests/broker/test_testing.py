"""The fakes that ship do what they say."""

from broker_support import HeldJournal
from thingctl_broker.testing import InMemoryLink, ManualClock, Published, service_with_fakes


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
