import json
import os
import threading

from awscrt import io, mqtt


def on_message(topic, payload, **_):
    request = json.loads(payload)
    answer = {"status": "SUCCEEDED", "result": {"value": request["params"]["value"]}}
    connection.publish(topic.replace("/request", "/response"), json.dumps(answer), mqtt.QoS.AT_LEAST_ONCE)


connection = mqtt.Connection(
    mqtt.Client(io.ClientBootstrap.get_or_create_static_default()),
    host_name="127.0.0.1",
    port=int(os.environ["BENCH_PORT"]),
    client_id="bench",
    clean_session=False,
)
connection.connect().result(10)
connection.subscribe("$emqx/commands/things/bench/executions/+/request", mqtt.QoS.AT_LEAST_ONCE, on_message)[
    0
].result(10)
print("subscribed", flush=True)
threading.Event().wait()
