import base64
import os
import threading
from pathlib import Path

from azure.iot.device import IoTHubDeviceClient, MethodResponse

key = base64.b64encode(b"0" * 32).decode()
client = IoTHubDeviceClient.create_from_connection_string(
    f"HostName=localhost;DeviceId=bench;SharedAccessKey={key}",
    server_verification_cert=Path(os.environ["BENCH_CA"]).read_text(),
)


def on_method(request):
    answer = {"value": request.payload["value"]}
    client.send_method_response(MethodResponse.create_from_method_request(request, 200, answer))


client.connect()
client.on_method_request_received = on_method
print("subscribed", flush=True)
threading.Event().wait()
