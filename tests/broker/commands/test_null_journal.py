"""A journal that keeps nothing holds nobody up."""

from broker_support import make_execution
from thingctl_broker.commands.null_journal import NullJournal


def test_everything_counts_as_kept_at_once():
    journal, called = NullJournal(), []
    journal.record(make_execution())
    journal.forget("0193")
    journal.then(lambda: called.append(True))
    assert called == [True]


async def test_it_has_the_whole_life_of_a_journal():
    journal = NullJournal()
    assert list(journal.recover(0.0, 0.0)) == []
    await journal.start()
    await journal.stop()
    journal.release()
    assert journal.accepting
