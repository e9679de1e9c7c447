"""The tracker that most people write: FastAPI and a paho client beside a broker.

Runs in a virtual environment of its own that has fastapi, uvicorn[standard] and paho-mqtt.
The API is that of thingctl as far as the load needs it. A dict is the table; paho's
network thread fills it in. Nothing is kept on disk, and no deadline is watched.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = "$emqx/commands"
executions: dict[str, dict[str, Any]] = {}
client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="tracker")


class Command(BaseModel):
    thingId: str  # noqa: N815 the API's spelling
    action: str
    params: dict[str, Any] = Field(default_factory=dict)
    ttl: int = 60


def on_connect(connected: paho.Client, *_: object) -> None:
    connected.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.subscribe(f"{ROOT}/things/+/executions/+/response", qos=1)


def on_message(_: paho.Client, __: object, message: paho.MQTTMessage) -> None:
    levels = message.topic.split("/")
    execution = executions.get(levels[5])
    if execution is not None and execution["thingId"] == levels[3]:
        response = json.loads(message.payload)
        execution["status"] = response["status"]
        execution["result"] = response.get("result")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    client.max_inflight_messages_set(0)
    client.max_queued_messages_set(0)
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    print(json.dumps({"event": "ready", "http": int(sys.argv[2])}), flush=True)
    yield
    client.disconnect()
    client.loop_stop()


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/commands", status_code=201)
async def send(command: Command) -> dict[str, Any]:
    execution_id = str(uuid.uuid4())
    now = time.time()
    execution = {
        "executionId": execution_id,
        "commandId": str(uuid.uuid4()),
        "thingId": command.thingId,
        "action": command.action,
        "params": command.params,
        "ttl": command.ttl,
        "createdAt": now,
        "status": "SENT",
    }
    executions[execution_id] = execution
    payload = {
        "commandId": execution["commandId"],
        "action": command.action,
        "params": command.params,
        "timestamp": int(now),
        "ttl": command.ttl,
    }
    topic = f"{ROOT}/things/{command.thingId}/executions/{execution_id}/request"
    client.publish(topic, json.dumps(payload, separators=(",", ":")), qos=1)
    return execution


@app.get("/api/v1/commands/{execution_id}")
async def show(execution_id: str) -> dict[str, Any]:
    execution = executions.get(execution_id)
    if execution is None:
        raise HTTPException(404)
    return execution


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
