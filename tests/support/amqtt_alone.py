"""amqtt alone in the test's own loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from amqtt.broker import Broker


@asynccontextmanager
async def bare_amqtt(**config: Any) -> AsyncIterator[Broker]:
    """amqtt with a listener that connections are handed to, and no plugin of ours."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            **config,
        }
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.shutdown()
