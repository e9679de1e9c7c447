"""The peer inside amqtt: a broker with its own listeners and :class:`plain_plugin.PlainPlugin`."""

from __future__ import annotations

import logging
from typing import Final

import uvloop
from amqtt.broker import Broker

from in_process import obey
from mosquitto import free_port
from plain_plugin import ROOT, PlainPlugin

AUTH: Final = "amqtt.plugins.authentication.AnonymousAuthPlugin"


async def main() -> None:
    """Serve until stdin ends."""
    logging.basicConfig(level=logging.ERROR)
    port = free_port()
    broker = Broker(
        {
            "listeners": {
                "default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 100_000},
            },
            "plugins": {AUTH: {"allow_anonymous": True}, "plain_plugin.PlainPlugin": {}},
        }
    )
    await broker.start()
    try:
        await obey(PlainPlugin.instance.load, mqtt=port, root=ROOT)
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(main())
