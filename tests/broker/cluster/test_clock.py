"""One worker's clock is wrong: what it tells others goes by the store's."""

from structlog.testing import capture_logs

from support.fleet import settled
from thingctl_broker.cluster.clock import StoreClock
from thingctl_broker.cluster.link_port import PresenceReport
from thingctl_broker.testing import ManualClock

HOUR = 3600.0


class WrongClock:
    """As ``right``, but for the time of day."""

    def __init__(self, right, wrong_by):
        self.monotonic = right.monotonic
        self.unix = lambda: right.unix() + wrong_by


async def answer(at, clock=None, takes=0.0):
    if clock is not None:
        clock.advance(takes)
    return at


async def test_the_store_s_time_counts_once_it_is_known_and_goes_on_by_the_monotonic_clock():
    right = ManualClock()
    clock = StoreClock(WrongClock(right, HOUR))
    assert clock.unix() == right.unix() + HOUR
    with capture_logs() as logs:
        await clock.follow(answer(right.unix()))
        await clock.follow(answer(right.unix()))
    assert [(log["log_level"], log["seconds"]) for log in logs] == [("warning", HOUR)]
    right.advance(10)
    assert abs(clock.unix() - right.unix()) < 0.001
    assert clock.monotonic() == right.monotonic()


async def test_an_answer_that_took_long_is_not_gone_by_but_when_there_is_no_other():
    right = ManualClock()
    clock = StoreClock(right)
    at = right.unix()
    await clock.follow(answer(at, right, 4.0))
    assert abs(clock.unix() - at - 2.0) < 0.001
    await clock.follow(answer(right.unix()))
    at = right.unix()
    await clock.follow(answer(at, right, 4.0))
    assert abs(clock.unix() - at - 4.0) < 0.001


async def test_a_worker_whose_clock_is_fast_does_not_hide_what_others_hear_later(fleet):
    fast = await fleet.member("fast", machine=WrongClock(fleet.clock, HOUR))
    right = fleet.members[0]
    with capture_logs():
        await fast.sweeper.live()
    await fast.incoming.present(PresenceReport("lamp", online=True, client_id="c", at=None))
    await settled()
    assert fast.link.times[-1][0] == "lamp"
    assert abs(fast.link.times[-1][1] - fleet.clock.unix()) < 0.001
    fleet.clock.advance(1)
    await right.incoming.present(PresenceReport("lamp", online=False, client_id="c", at=None))
    await settled()
    assert not right.mirror.things.get("lamp").online
    assert not fast.mirror.things.get("lamp").online


async def test_what_is_sent_from_a_machine_in_the_wrong_year_is_filed_under_this_one(fleet):
    fast = await fleet.member("fast", machine=WrongClock(fleet.clock, -400 * 24 * HOUR))
    with capture_logs():
        await fast.sweeper.live()
    execution = await fast.send()
    made = int(execution.execution_id[:8] + execution.execution_id[9:13], 16) / 1000
    assert abs(made - fleet.clock.unix()) < 1.0
    assert execution.created_at == fleet.clock.unix()
