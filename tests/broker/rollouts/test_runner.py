"""Rollouts in motion: chunks, journals that fail, restarts."""

from __future__ import annotations

import asyncio

import pytest

from support.waits import eventually
from thingctl_broker.errors import InvalidCommand, NotAccepting, TableFull, UnknownCommand, WrongMove
from thingctl_broker.rollouts import runner
from thingctl_broker.rollouts.rollout import RolloutRules, State
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.storage.rollout_files import RolloutFiles
from thingctl_broker.testing import InMemoryJournal, service_with_fakes
from thingctl_protocol.messages import EMPTY_OBJECT
from thingctl_protocol.statuses import Status

NAMES = [f"t{i:05}" for i in range(300)]


async def begin(rollouts, things=NAMES, **rules):
    return await rollouts.begin(
        list(things), "turnOn", EMPTY_OBJECT, 60, RolloutRules(**rules), requested_by="me"
    )


@pytest.fixture
async def service():
    service, _, _ = service_with_fakes(NAMES)
    return service


@pytest.fixture
async def rollouts(service):
    rollouts = RolloutRunner(service)
    yield rollouts
    await rollouts.stop()


def executions(service, rollout):
    return list(service.table.of_command(rollout.record.command_id))


async def test_everybody_gets_it_once(service, rollouts):
    rollout = await begin(rollouts)
    await eventually(lambda: rollout.record.state is State.FINISHED)
    found = executions(service, rollout)
    assert sorted(execution.thing for execution in found) == NAMES
    assert {execution.requested_by for execution in found} == {"me"}


async def test_nobody_starves_meanwhile(service, rollouts):
    """A small one gets its turn between the chunks of a large one."""
    large = await begin(rollouts)
    small = await begin(rollouts, NAMES[:1])
    await eventually(lambda: small.record.state is State.FINISHED)
    order = [execution.command_id for execution in service.table]
    assert order.index(small.record.command_id) <= runner.CHUNK
    await eventually(lambda: large.record.state is State.FINISHED)


async def test_a_batch_goes_on_when_executions_end(service, rollouts):
    rollout = await begin(rollouts, NAMES[:3], batch=1)
    for thing in NAMES[:3]:
        await eventually(lambda: rollout.live == 1)
        (live,) = [e for e in executions(service, rollout) if not e.is_terminal]
        assert live.thing == thing
        service.respond(thing, live.execution_id, b'{"status":"SUCCEEDED"}', lambda: None)
    await eventually(lambda: rollout.record.state is State.FINISHED)


async def test_pause_resume_cancel(service, rollouts):
    rollout = await begin(rollouts, NAMES, batch=2)
    command_id = rollout.record.command_id
    await eventually(lambda: rollout.live == 2)
    await rollouts.move(command_id, State.PAUSED)
    await rollouts.move(command_id, State.PAUSED)  # again is no fault
    live = executions(service, rollout)[0]
    service.respond(live.thing, live.execution_id, b'{"status":"SUCCEEDED"}', lambda: None)
    await asyncio.sleep(0)
    assert rollout.live == 1
    await rollouts.move(command_id, State.RUNNING)
    await eventually(lambda: rollout.live == 2)
    await rollouts.move(command_id, State.CANCELED)
    await eventually(lambda: rollout.live == 0)
    assert {e.status for e in executions(service, rollout)} == {Status.SUCCEEDED, Status.CANCELED}
    with pytest.raises(WrongMove):
        await rollouts.move(command_id, State.RUNNING)
    with pytest.raises(UnknownCommand):
        await rollouts.move("nothing", State.RUNNING)


async def test_a_thing_that_cannot_be_sent_it_is_told(service, rollouts):
    rollout = await begin(rollouts, ["gone", NAMES[0]])
    await eventually(lambda: rollout.record.state is State.FINISHED)
    assert (rollout.record.refused, rollout.live) == (1, 1)
    assert rollout.record.refusals == {"gone": "no thing is named 'gone'"}


async def test_a_full_table_waits(service, rollouts, monkeypatch):
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.01)
    service.table.capacity = 2
    rollout = await begin(rollouts, NAMES[:3])
    await eventually(lambda: len(service.table) == 2)
    service.cancel(next(iter(service.table)).execution_id)
    await eventually(lambda: rollout.record.state is State.FINISHED)


@pytest.mark.parametrize(
    ("command", "pointer"),
    [(("no good", b"{}", 60), "/action"), (("a", b"[]", 60), "/params"), (("a", b"{}", 0), "/ttl")],
)
async def test_what_no_thing_could_be_sent_is_refused_at_once(rollouts, command, pointer):
    with pytest.raises(InvalidCommand) as refused:
        await rollouts.begin(NAMES, *command, RolloutRules(), requested_by="me")
    assert refused.value.pointer == pointer


async def test_bounded(rollouts, monkeypatch):
    monkeypatch.setattr(runner, "ROLLOUTS_MAX", 1)
    first = await begin(rollouts, NAMES[:1])
    with pytest.raises(TableFull):
        await begin(rollouts, NAMES[:1])
    await eventually(lambda: first.record.state is State.FINISHED)
    await rollouts.move(first.record.command_id, State.CANCELED)
    await eventually(lambda: first.live == 0)
    await begin(rollouts, NAMES[:1])
    assert len(rollouts) == 1
    assert await rollouts.get(first.record.command_id) is None


async def test_a_journal_that_fails_gives_back_and_it_goes_on_later(monkeypatch):
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.01)
    journal = InMemoryJournal()
    service, _, _ = service_with_fakes(NAMES, journal)
    rollouts = RolloutRunner(service)
    rollout = await begin(rollouts, NAMES[:5])
    await eventually(lambda: not journal.idle)
    journal.fail()
    await eventually(lambda: rollout.pending == 5)
    assert len(service.table) == 0
    with pytest.raises(NotAccepting):
        await begin(rollouts)
    journal.accepting = True

    def commit():
        if not journal.idle:
            journal.commit()
        return rollout.record.state is State.FINISHED

    await eventually(commit)
    assert len(executions(service, rollout)) == 5
    await rollouts.stop()


async def test_a_restart_goes_on_where_it_was(tmp_path):
    journal = InMemoryJournal()
    service, _, clock = service_with_fakes(NAMES, journal)
    rollouts = RolloutRunner(service, RolloutFiles(tmp_path))
    rollout = await begin(rollouts, NAMES[:5], batch=2)
    await eventually(lambda: not journal.idle)
    journal.commit()
    await rollouts.stop()

    again, _, _ = service_with_fakes(NAMES, journal)
    again.restore(journal.recover(clock.monotonic(), clock.unix()))
    restored = RolloutRunner(again, RolloutFiles(tmp_path))
    assert restored.restore() == 1
    found = await restored.get(rollout.record.command_id)
    assert (found.live, found.pending, found.record.state) == (2, 3, State.RUNNING)
    restored.start()
    await restored.move(rollout.record.command_id, State.CANCELED)
    await eventually(lambda: found.live == 0)
    await restored.stop()
    final = RolloutRunner(again, RolloutFiles(tmp_path))
    assert final.restore() == 0
    assert (await final.get(rollout.record.command_id)).record.state is State.CANCELED


async def test_a_command_that_cannot_be_kept_is_not_accepted(service, tmp_path):
    (tmp_path / "rollouts").write_text("in the way")
    rollouts = RolloutRunner(service, RolloutFiles(tmp_path))
    with pytest.raises(NotAccepting):
        await begin(rollouts)
    assert len(rollouts) == 0


async def test_a_damaged_file_is_left_and_the_others_go_on(service, tmp_path):
    store = RolloutFiles(tmp_path)
    rollouts = RolloutRunner(service, store)
    rollout = await begin(rollouts, NAMES[:1])
    await eventually(lambda: rollout.record.state is State.FINISHED)
    await rollouts.stop()
    damaged = tmp_path / "rollouts" / "0.json"
    damaged.write_bytes(b"{")
    assert [record.command_id for record in store.load()] == [rollout.record.command_id]
    assert damaged.exists()


async def test_only_so_many_are_taken_up_again(service, tmp_path, monkeypatch):
    store = RolloutFiles(tmp_path)
    rollouts = RolloutRunner(service, store)
    made = [await begin(rollouts, NAMES[:1]) for _ in range(3)]
    await eventually(lambda: all(rollout.record.state is State.FINISHED for rollout in made))
    await rollouts.stop()
    monkeypatch.setattr(runner, "ROLLOUTS_MAX", 2)
    restored = RolloutRunner(service, store)
    restored.restore()
    assert await restored.get(made[0].record.command_id) is None
    assert len(store.load()) == 2


async def test_a_move_that_cannot_be_kept_is_no_move(service, tmp_path, monkeypatch):
    rollouts = RolloutRunner(service, RolloutFiles(tmp_path))
    rollout = await begin(rollouts, NAMES, batch=2)
    await eventually(lambda: rollout.live == 2)

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RolloutFiles, "_write", full)
        for to in (State.PAUSED, State.CANCELED):
            with pytest.raises(NotAccepting):
                await rollouts.move(rollout.record.command_id, to)
            assert rollout.record.state is State.RUNNING
    await rollouts.move(rollout.record.command_id, State.PAUSED)
    await rollouts.stop()
    again = RolloutRunner(service, RolloutFiles(tmp_path))
    again.restore()
    assert (await again.get(rollout.record.command_id)).record.state is State.PAUSED
