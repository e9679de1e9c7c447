import asyncio
import json
import os

import gmqtt


def on_message(client, topic, payload, _qos, _properties):
    request = json.loads(payload)
    answer = {"status": "SUCCEEDED", "result": {"value": request["params"]["value"]}}
    client.publish(topic.replace("/request", "/response"), json.dumps(answer), qos=1)
    return 0


async def main():
    client = gmqtt.Client("bench")
    client.on_message = on_message
    client.on_subscribe = lambda *_: print("subscribed", flush=True)
    await client.connect("127.0.0.1", int(os.environ["BENCH_PORT"]), version=4)
    client.subscribe("$emqx/commands/things/bench/executions/+/request", qos=1)
    await asyncio.Event().wait()


asyncio.run(main())
