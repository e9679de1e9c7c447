import os
import threading

from tb_device_mqtt import TBDeviceMqttClient

client = TBDeviceMqttClient("127.0.0.1", int(os.environ["BENCH_PORT"]), "token")


def on_request(request_id, body):
    if body["method"] == "set":  # it also hears its own question for the server's limits
        client.send_rpc_reply(request_id, {"value": body["params"]["value"]})


client.set_server_side_rpc_request_handler(on_request)
connected = threading.Event()
client.connect(callback=lambda *_: connected.set())
connected.wait(10)
print("subscribed", flush=True)
threading.Event().wait()
