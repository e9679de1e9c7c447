"""A command to many things, and what is to be told of it, across restarts of the whole broker."""

from __future__ import annotations

import json
from asyncio import StreamReader, StreamWriter, start_server

from support.brokers import plugin_broker
from support.waits import eventually
from thingctl_broker.rollouts.rollout import RolloutRules, State
from thingctl_protocol.messages import EMPTY_OBJECT
from thingctl_protocol.statuses import Status

NAMES = [f"t{i}" for i in range(5)]
WEBHOOKS = {"allow_private": True}


def counts(application, command_id):
    found = list(application.service.table.of_command(command_id))
    return len(found), len({execution.thing for execution in found})


async def test_a_rollout_goes_on_after_a_restart_and_nobody_gets_it_twice(tmp_path):
    async with plugin_broker(tmp_path) as running:
        for name in NAMES:
            running.service.things.know(name, 0.0)
        rollout = await running.application.rollouts.begin(
            NAMES, "reboot", EMPTY_OBJECT, 600, RolloutRules(batch=2), requested_by="me"
        )
        command_id = rollout.record.command_id
        await eventually(lambda: rollout.live == 2)
    async with plugin_broker(tmp_path) as running:
        rollout = running.application.rollouts._rollouts.get(command_id)
        assert (rollout.live, rollout.pending, rollout.record.state) == (2, 3, State.RUNNING)

        def all_gone():
            for execution in list(running.service.table.of_command(command_id)):
                if not execution.is_terminal:
                    running.service.cancel(execution.execution_id)
            return rollout.record.state is State.FINISHED and not rollout.live

        await eventually(all_gone)
        assert counts(running.application, command_id) == (5, 5)
    async with plugin_broker(tmp_path) as running:
        rollout = running.application.rollouts._rollouts.get(command_id)
        assert (rollout.pending, rollout.live, rollout.record.targeted) == (0, 0, 5)
        assert counts(running.application, command_id) == (5, 5)


async def test_an_end_that_could_not_be_told_is_told_after_a_restart(tmp_path):
    told = []

    async def take(reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        told.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await start_server(take, "127.0.0.1", 0)
    uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    server.close()
    await server.wait_closed()  # nobody is there yet
    async with plugin_broker(tmp_path, webhooks=WEBHOOKS) as running:
        running.service.things.know("lamp", 0.0)
        execution = running.service.send("lamp", "turnOn", post_back_uri=uri)
        running.service.cancel(execution.execution_id)
        await eventually(lambda: running.service.counters["webhooks.failed"])
    host, port = uri.removeprefix("http://").removesuffix("/hook").split(":")
    server = await start_server(take, host, int(port))
    try:
        async with plugin_broker(tmp_path, webhooks=WEBHOOKS) as running:
            await eventually(lambda: told)
            found = running.service.get(execution.execution_id)
            await eventually(lambda: not found.untold)
        assert [execution["status"] for execution in told] == [Status.CANCELED]
        async with plugin_broker(tmp_path, webhooks=WEBHOOKS) as running:
            assert len(running.application.webhooks) == 0
    finally:
        server.close()
