"""Calls that gather: together, once each, in their order, and never forgotten."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.storage.postgres.batching import BatchQueue


class Counting:
    """Batches that end when the test says so."""

    def __init__(self, **options):
        self.batches = []
        self.gates = []
        self.lane = BatchQueue(self._run, lambda call: (call[0],), **options)

    async def _run(self, calls):
        self.batches.append(calls)
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return [ValueError(call) if call[1] == "bad" else call for call in calls]

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)

    def open(self, number):
        self.gates[number].set()


async def test_what_comes_meanwhile_goes_together():
    counting = Counting()
    calls = [asyncio.create_task(counting.lane(("a", 1)))]
    await counting.settle()
    calls += [asyncio.create_task(counting.lane((name, 1))) for name in "bcd"]
    await counting.settle()
    assert counting.batches == [[("a", 1)]]
    counting.open(0)
    await counting.settle()
    assert counting.batches[1:] == [[("b", 1), ("c", 1), ("d", 1)]]
    counting.open(1)
    assert await asyncio.gather(*calls) == [(name, 1) for name in "abcd"]
    assert counting.lane.batches == 2


async def test_the_same_thing_is_once_in_a_batch_and_in_order():
    counting = Counting()
    calls = [asyncio.create_task(counting.lane((name, i))) for i, name in enumerate("abaacb")]
    for number in range(3):
        await counting.settle()
        counting.open(number)
    await asyncio.gather(*calls)
    assert counting.batches == [[("a", 0), ("b", 1), ("c", 4)], [("a", 2), ("b", 5)], [("a", 3)]]


async def test_the_same_thing_is_never_in_two_batches_at_once():
    counting = Counting(parallel=2)
    calls = [asyncio.create_task(counting.lane(("a", 0)))]
    await counting.settle()
    calls += [asyncio.create_task(counting.lane(call)) for call in (("a", 1), ("b", 0))]
    await counting.settle()
    assert counting.batches == [[("a", 0)], [("b", 0)]]
    counting.open(1)
    await counting.settle()
    assert len(counting.batches) == 2
    counting.open(0)
    await counting.settle()
    counting.open(2)
    assert await asyncio.gather(*calls) == [("a", 0), ("a", 1), ("b", 0)]


async def test_one_fault_is_one_callers_and_a_caller_that_goes_harms_nobody():
    counting = Counting(batch_max=2)
    bad, good, gone, after = (
        asyncio.create_task(counting.lane(call)) for call in (("a", "bad"), ("b", 1), ("c", 1), ("d", 1))
    )
    await counting.settle()
    gone.cancel()
    counting.open(0)
    with pytest.raises(ValueError, match="bad"):
        await bad
    assert await good == ("b", 1)
    await counting.settle()
    assert counting.batches[1] == [("d", 1)]  # what nobody waits for any more is not begun
    after.cancel()
    counting.open(1)
    await counting.lane.drained()


async def test_a_batch_that_fails_fails_for_all_in_it_and_the_next_goes_on():
    async def run(calls):
        if "bad" in calls:
            raise OSError("no")
        return calls

    lane = BatchQueue(run, lambda call: (call,))
    outcomes = await asyncio.gather(lane("bad"), lane("good"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    assert await lane("good") == "good"


async def test_a_call_right_at_the_end_of_a_batch_is_not_left_behind():
    """The one that is answered asks again before its batch's task is done."""

    async def run(calls):
        return calls

    lane = BatchQueue(run, lambda call: (call,))

    async def caller(name):
        for i in range(200):
            assert await lane((name, i)) == (name, i)

    async with asyncio.timeout(20):
        await asyncio.gather(*map(caller, "abc"))


async def test_what_is_in_no_hurry_waits_until_it_must_not():
    async def run(calls):
        return calls

    lane = BatchQueue(run, lambda _: (), wait=1000.0)
    calls = [asyncio.create_task(lane(i)) for i in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await lane.drained()
    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert lane.batches == 1


@given(
    names=st.lists(st.sampled_from("abcd"), max_size=30),
    parallel=st.integers(1, 3),
    batch_max=st.integers(1, 5),
)
def test_any_calls_keep_their_order_by_what_they_are_about(names, parallel, batch_max):
    order, under_way = [], set()

    async def run(calls):
        keys = [name for name, _ in calls]
        assert len(calls) <= batch_max
        assert len(set(keys)) == len(keys)
        assert under_way.isdisjoint(keys)
        under_way.update(keys)
        await asyncio.sleep(0)
        under_way.difference_update(keys)
        order.extend(calls)
        return calls

    async def main():
        lane = BatchQueue(run, lambda call: (call[0],), parallel=parallel, batch_max=batch_max)
        return await asyncio.gather(*(lane(call) for call in zip(names, range(len(names)), strict=True)))

    calls = list(zip(names, range(len(names)), strict=True))
    assert asyncio.run(main()) == calls
    for name in "abcd":
        assert [call for call in order if call[0] == name] == [call for call in calls if call[0] == name]
