"""A worker in a process of its own: notes each response that it has handled in a file, one line each.

``python link_worker.py URL WORKER FILE SECONDS``; SECONDS: how long handling one takes.
"""

from __future__ import annotations

import asyncio
import os
import sys

from support.cluster import TOPICS, Worker, settings
from thingctl_broker.mqtt.cluster.link import ClusterLink


class Noting(Worker):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._seconds = seconds

    async def responded(self, thing: str, execution_id: str, payload: bytes) -> None:
        await asyncio.sleep(self._seconds)
        os.write(self._file, f"{execution_id}\n".encode())


async def main(url: str, name: str, path: str, seconds: str) -> None:
    link = ClusterLink(settings(url, name), TOPICS)
    await link.start(Noting(path, float(seconds)), lambda _: None)
    print("attached", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
