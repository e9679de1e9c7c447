"""The peer inside amqtt: its own listeners, and a plugin as its documentation would have one written.

A dict of executions, ``broadcast_message`` for the request, ``on_broker_message_received``
for the response. The topics have a root without ``$``: amqtt 0.12.1 stops reading from a
client that has published to a ``$`` topic.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from amqtt.plugins.base import BasePlugin

from in_process import InProcessLoad

if TYPE_CHECKING:
    from amqtt.broker import BrokerContext
    from amqtt.session import ApplicationMessage

ROOT: Final = "commands"


class PlainPlugin(BasePlugin["BrokerContext"]):  # type: ignore[misc]  # amqtt ships no types
    """Sends commands and keeps a dict of them."""

    instance: PlainPlugin

    def __init__(self, context: BrokerContext) -> None:
        super().__init__(context)
        PlainPlugin.instance = self
        self.executions: dict[str, dict[str, Any]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.load = InProcessLoad(self.send)

    def send(self, thing: str) -> str:
        """Make an execution and publish its request."""
        execution_id = str(uuid.uuid4())
        request = {
            "commandId": execution_id,
            "action": "setTemperature",
            "params": {"value": 24},
            "timestamp": int(time.time()),
            "ttl": 60,
        }
        self.executions[execution_id] = {**request, "thing": thing, "status": "SENT"}
        topic = f"{ROOT}/things/{thing}/executions/{execution_id}/request"
        publishing = self.context.broadcast_message(topic, json.dumps(request).encode(), qos=1)
        task = asyncio.get_running_loop().create_task(publishing)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return execution_id

    async def on_broker_message_received(self, *, client_id: str, message: ApplicationMessage) -> None:
        """Close the execution that a response belongs to."""
        levels = message.topic.split("/")
        if levels[0] != ROOT or levels[-1] != "response" or levels[2] != client_id:
            return
        execution = self.executions.get(levels[4])
        if execution is None:
            return
        response = json.loads(message.data)
        execution["status"] = response["status"]
        execution["result"] = response.get("result")
        self.load.ended(levels[4], response["status"])
