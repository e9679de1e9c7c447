import asyncio
import json
import os

from aiomqtt import Client


async def main():
    async with Client("127.0.0.1", int(os.environ["BENCH_PORT"]), identifier="bench") as client:
        await client.subscribe("$emqx/commands/things/bench/executions/+/request", qos=1)
        print("subscribed", flush=True)
        async for message in client.messages:
            request = json.loads(message.payload)
            answer = {"status": "SUCCEEDED", "result": {"value": request["params"]["value"]}}
            await client.publish(
                str(message.topic).replace("/request", "/response"), json.dumps(answer), qos=1
            )


asyncio.run(main())
