"""The server's figures are published, retained, again and again."""

from __future__ import annotations

import asyncio

from support.hosted import HostedServerFake
from support.waits import eventually
from thingctl_broker.mqtt.engine.sys_topics import ROOT
from thingctl_broker.mqtt.server.sys_publisher import publish_figures


class Counting(HostedServerFake):
    """Each look at its figures is one more client."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def figures(self) -> dict[str, float]:
        self.looks += 1
        return {"clients_connected": self.looks}


async def test_what_has_changed_is_published_retained_at_each_interval():
    server = Counting()
    task = asyncio.get_running_loop().create_task(publish_figures(server, "thingctl version 1", 0.01))
    await eventually(lambda: server.looks == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(said.retain and said.qos == 0 for said in server.published)
    assert [(said.topic, said.payload) for said in server.published] == [
        (ROOT + "version", b"thingctl version 1"),
        *[
            (ROOT + f"clients/{word}", b"%d" % count)
            for count in (1, 2, 3)
            for word in ("connected", "active")
        ],
    ]
