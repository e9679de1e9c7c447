"""The peer inside amqtt: a broker with its own listeners and :class:`plain_plugin.PlainPlugin`.

``--alone``: without that plugin.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

import uvloop
from amqtt.broker import Broker

from in_process import InProcessLoad, obey
from mosquitto import free_port
from plain_plugin import ROOT, PlainPlugin

AUTH: Final = "amqtt.plugins.authentication.AnonymousAuthPlugin"


async def main() -> None:
    """Serve until stdin ends."""
    logging.basicConfig(level=logging.ERROR)
    port = free_port()
    alone = sys.argv[1:] == ["--alone"]
    plugins = {AUTH: {"allow_anonymous": True}} | ({} if alone else {"plain_plugin.PlainPlugin": {}})
    broker = Broker(
        {
            "listeners": {
                "default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 100_000},
            },
            "plugins": plugins,
        }
    )
    await broker.start()
    try:
        await obey(InProcessLoad(str) if alone else PlainPlugin.instance.load, mqtt=port, root=ROOT)
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(main())
