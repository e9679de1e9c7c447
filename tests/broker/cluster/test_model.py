"""Two workers over one store: crashes, a link or a store away at any moment, things that come and go.

Whatever happens in whatever order, what operators are told holds.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from support.fleet import Fleet, settled
from thingctl_broker.cluster.maintenance import UNHANDED_SECONDS
from thingctl_broker.errors import ServiceError

THINGS = ("lamp", "lock")
ANNOUNCEMENT = b'{"actions":[]}'
ANSWERS = (b'{"status":"IN_PROGRESS"}', b'{"status":"SUCCEEDED"}', b'{"status":"FAILED"}')

worker = st.integers(0, 1)
thing = st.sampled_from(THINGS)
rarely = st.sampled_from([False, False, True])


class Workers(RuleBasedStateMachine):
    """The steps, and what holds after each."""

    accepted = Bundle("accepted")

    def __init__(self):
        super().__init__()
        structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
        self.loop = asyncio.new_event_loop()
        self.fleet = Fleet()
        self.tasks = []
        self.ended = {}
        self.names = 0
        self.accepted_ids = set()
        self.deadlines = {}
        self.disturbed = set()
        """Executions that something was lost of on their way: they may go out more than once."""
        self.run(self.start())

    async def start(self):
        for _ in range(2):
            await self.join()
        await self.fleet.add_things(*THINGS)

    async def join(self):
        self.names += 1
        await self.fleet.member(f"w{self.names}")

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def begin(self, coroutine):
        """Set something going; how far it comes is for the next steps to say."""

        async def begin():
            task = asyncio.ensure_future(coroutine)
            self.tasks.append(task)
            await asyncio.sleep(0)
            return task

        return self.run(begin())

    @property
    def table(self):
        return self.fleet.store._table

    @staticmethod
    def told_id(sent):
        """What the operator was told of the execution; None: nothing yet, or that it was not accepted."""
        return sent.result() if sent.done() and not sent.cancelled() and sent.exception() is None else None

    def disturb(self):
        self.disturbed.update(one.execution_id for one in self.table if not one.is_terminal)

    # What operators do.

    @rule(target=accepted, which=worker, thing=thing, ttl=st.sampled_from([5, 60, 3000]), waits=st.booleans())
    def send(self, which, thing, ttl, waits):
        member = self.fleet.members[which]
        at = self.fleet.clock.monotonic()

        async def send():
            execution = await member.send(thing, ttl=ttl)
            self.accepted_ids.add(execution.execution_id)
            self.deadlines[execution.execution_id] = at + ttl
            return execution.execution_id

        task = self.begin(send())
        if waits:
            self.run(settled())
        return task

    @rule(sent=accepted, which=worker)
    def cancel(self, sent, which):
        if (execution_id := self.told_id(sent)) is not None:
            operations = self.fleet.members[which].operations
            self.begin(operations.cancel(execution_id, lambda _: None, lambda _: None))

    @rule(which=worker, thing=thing)
    def withdraw(self, which, thing):
        self.begin(self.fleet.members[which].operations.withdraw(thing))

    # What things do.

    @rule(thing=thing)
    def come(self, thing):
        self.fleet.come(thing)

    @rule(thing=thing, which=worker)
    def announce(self, thing, which):
        async def announce():
            self.fleet.members[which].link.announce(thing, ANNOUNCEMENT)

        self.fleet.come(thing)
        self.run(announce())

    @rule(thing=thing)
    def go(self, thing):
        self.fleet.go(thing)

    @rule(thing=thing, which=worker)
    def dies_with_the_thing(self, thing, which):
        """What was published a moment ago may have arrived, and nobody is there to say so."""
        self.fleet.come(thing)
        self.begin(self.fleet.members[which].send(thing, ttl=3000))
        self.run(settled())
        self.crash(which)
        self.fleet.go(thing)

    @rule(sent=accepted, which=worker, answer=st.sampled_from(ANSWERS))
    def answer(self, sent, which, answer):
        async def respond():
            for thing, execution_id in dict.fromkeys(self.fleet.got):
                if execution_id == self.told_id(sent):
                    self.fleet.members[which].link.respond(thing, execution_id, answer)

        self.run(respond())

    # What befalls them.

    @rule(which=worker, lost=rarely)
    def link(self, which, lost):
        link = self.fleet.members[which].link
        if lost:
            self.disturb()
            link.is_held = False
            self.run(self.call(link.lose))
        else:
            self.run(self.call(link.restore))

    async def call(self, function):
        function()

    @rule(which=worker, held=rarely)
    def slow(self, which, held):
        link = self.fleet.members[which].link
        link.is_held = held
        if not held:
            self.run(self.call(link.release))

    @rule(turns=st.integers(0, 8), seconds=st.sampled_from([0, 0, 11]))
    def store_away(self, turns, seconds):
        """For a moment, or for long enough that turns are missed."""
        self.disturb()

        async def change():
            self.fleet.down()
            for _ in range(turns):
                await asyncio.sleep(0)
            if seconds:
                await self.sweep(seconds)
            self.fleet.down(down=False)
            await self.recover()

        self.run(change())

    async def recover(self):
        for member in self.fleet.members:
            await member.mirror.load()
            member.link.redeliver()

    @rule(which=worker)
    def crash(self, which):
        """A worker dies, with everything that is under way; another starts in its place."""
        self.disturb()

        async def crash():
            member = self.fleet.members[which]
            for task in self.tasks:
                task.cancel()  # whoever asked hears nothing
            await member.die()
            await self.join()

        self.run(crash())

    @rule(turns=st.integers(1, 8))
    def a_little_later(self, turns):
        async def turn():
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turn())

    @rule(seconds=st.sampled_from([0.5, 3, UNHANDED_SECONDS, 61]))
    def later(self, seconds):
        self.run(self.sweep(seconds))

    async def sweep(self, seconds):
        await settled()
        if any(member.link.is_held for member in self.fleet.members):
            self.disturb()  # for so slow a cluster others try as well
        for member in self.fleet.members:
            await member.requests._keep_handed()
        self.fleet.clock.advance(seconds)
        for member in self.fleet.members:
            for turn in (member.sweeper.expire, member.sweeper.retry):
                try:
                    await turn()
                except ServiceError:
                    self.disturb()
        await settled()

    # What holds.

    @invariant()
    def what_is_safe_to_send_again_was_given_to_nobody(self):
        given = {execution_id for _, execution_id in self.fleet.got}
        for execution in self.table:
            assert not (execution.retry_safe and execution.execution_id in given)

    @invariant()
    def what_has_ended_stays_as_it_is(self):
        for execution in self.table:
            if execution.is_terminal:
                seen = self.ended.setdefault(execution.execution_id, (execution.status, execution.result))
                assert seen == (execution.status, execution.result)

    @invariant()
    def what_was_accepted_is_there(self):
        assert all(self.table.get(execution_id) is not None for execution_id in self.accepted_ids)

    @invariant()
    def undisturbed_a_thing_gets_a_request_once(self):
        for (_, execution_id), times in Counter(self.fleet.got).items():
            assert times == 1 or execution_id in self.disturbed

    @invariant()
    def nothing_goes_out_when_its_time_is_over(self):
        for member in self.fleet.members:
            assert all(request.expires_in > 0 for request in member.link.requested)

    @invariant()
    def nothing_is_left_behind(self):
        for member in self.fleet.members:
            if not len(member.requests):
                assert member.requests._under_way == set()
                assert member.requests._offering == {}

    def teardown(self):
        try:
            self.run(self.in_the_end())
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.run(asyncio.sleep(0))
            self.loop.close()
            structlog.reset_defaults()

    async def in_the_end(self):
        """When all is well again every command ends, and every end is told by one worker at the most."""
        self.fleet.down(down=False)
        await self.recover()
        for member in self.fleet.members:
            member.link.restore()
            member.link.release()
        for name in THINGS:
            self.fleet.come(name, ANSWERS[1])
        for _ in range(12):
            await self.sweep(11)
            for member in self.fleet.members:
                member.link.redeliver()
        await settled()
        given = {execution_id for _, execution_id in self.fleet.got}
        for execution in self.table:
            # Who was given it before its answers began may have to be asked for its verdict yet.
            assert execution.is_terminal or execution.execution_id in given
        for member in self.fleet.members:
            assert len(member.requests) == 0
            assert member.operations._waiters._waiters == {}
        told = Counter(
            execution_id
            for member in self.fleet.members
            for execution_id, change in member.told
            if change == "ended"
        )
        assert max(told.values(), default=0) <= 1
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.fleet.stop()


Workers.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestWorkers = Workers.TestCase
