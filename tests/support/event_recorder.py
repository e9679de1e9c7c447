"""A plugin of amqtt's, as a user would write one: each event that it hears is a line of a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtt.plugins.base import BasePlugin


class EventRecorder(BasePlugin):
    @dataclass
    class Config(BasePlugin.Config):
        file: str

    def _note(self, event: str, **details: Any) -> None:
        with Path(self.config.file).open("a") as file:
            file.write(json.dumps({"event": event, **details}) + "\n")

    async def on_broker_client_connected(self, *, client_id: str, client_session: Any) -> None:
        self._note("connected", client=client_id, user=client_session.username)

    async def on_broker_client_disconnected(self, *, client_id: str, client_session: Any) -> None:
        self._note("disconnected", client=client_id, user=client_session.username)

    async def on_broker_client_subscribed(self, *, client_id: str, topic: str, qos: int) -> None:
        self._note("subscribed", client=client_id, topic=topic, qos=qos)

    async def on_broker_client_unsubscribed(self, *, client_id: str, topic: str) -> None:
        self._note("unsubscribed", client=client_id, topic=topic)

    async def on_broker_message_received(self, *, client_id: str, message: Any) -> None:
        self._note("message", client=client_id, topic=message.topic, text=message.data.decode())
        if message.topic == "ask/the/plugin":
            await self.context.broadcast_message("the/plugin/answers", message.data)


def heard(path: Path, event: str) -> list[dict[str, Any]]:
    """What a recorder has heard of one event so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [told for line in lines if (told := json.loads(line)).pop("event") == event]
