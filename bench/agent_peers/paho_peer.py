import json
import os
import socket

from paho.mqtt.client import CallbackAPIVersion, Client


def on_message(client, _userdata, message):
    request = json.loads(message.payload)
    answer = {"status": "SUCCEEDED", "result": {"value": request["params"]["value"]}}
    client.publish(message.topic.replace("/request", "/response"), json.dumps(answer), qos=1)


client = Client(CallbackAPIVersion.VERSION2, client_id="bench", clean_session=False)
client.on_socket_open = lambda _c, _u, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
client.on_connect = lambda client, *_: client.subscribe("$emqx/commands/things/bench/executions/+/request", 1)
client.on_subscribe = lambda *_: print("subscribed", flush=True)
client.on_message = on_message
client.connect("127.0.0.1", int(os.environ["BENCH_PORT"]))
client.loop_forever()
