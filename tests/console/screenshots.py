"""Pictures of every page, light, dark and on a phone: ``make screenshots``.

The server and the console are the real ones; the fleet is the demonstration's.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

from console.chromium import launched  # noqa: E402
from console.demo import ACTIONS, TOKEN, live_an_hour, serving_demo  # noqa: E402
from console.devices import Api  # noqa: E402
from support.waits import soon  # noqa: E402
from thingctl_broker.things.mqtt_clients import Carrier, ClientSubscription, MqttClient  # noqa: E402

SIZES = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "light",
    },
}


def scenes(demo):
    """What to show: name, place, and what must be there before the picture is taken."""
    thing = "thermostat-north-01"
    demo.call(demo.connect, thing)
    api = Api(demo.url, TOKEN)
    actions = [{"name": name, **action} for name, action in ACTIONS.items()]
    api.call("PUT", "thing-types/thermostat", {"actions": actions})
    for one in api.call("GET", "things?limit=500")[1]["things"]:
        kind, site, _ = one["name"].split("-")
        api.call(
            "PUT",
            f"things/{one['name']}",
            {"type": "thermostat" if kind == "thermostat" else None, "tags": [site]},
        )
    running = demo.call(demo.send, thing, "calibrate", {"seconds": 20})
    progress = {"percent": 42, "message": "moving the valve"}
    demo.call(demo.respond, running, "IN_PROGRESS", progress=progress)
    demo.call(demo.send, "kiosk-harbour-02", "reboot")
    rejected = demo.call(demo.send, thing, "setTemperature", {"value": 22, "mode": "comfort"})
    reason = {"reasonCode": "LOCKED", "reasonDescription": "the child lock is on"}
    demo.call(demo.respond, rejected, "REJECTED", statusReason=reason)
    group = roll_out(demo, api)
    demo.clients.all = {client.client_id: client for client in mqtt_clients(demo.clock.unix())}
    return [
        ("overview", "#/", ".trouble li"),
        ("commands", "#/commands", ".canvas .tr"),
        ("filtered", "#/commands?status=FAILED%2CREJECTED%2CTIMED_OUT&since=1h", ".canvas .tr"),
        ("nothing-fits", "#/commands?action=noSuchAction", ".notice"),
        ("running", f"#/commands/{running.execution_id}", ".details .facts"),
        ("details", f"#/commands/{rejected.execution_id}", ".details .facts"),
        ("send", f"#/send?thing={thing}&action=setTemperature", ".choice"),
        ("send-nested", f"#/send?thing={thing}&action=setSchedule", ".choice"),
        ("send-again", f"#/send?from={rejected.execution_id}", ".choice"),
        ("send-to-many", "#/send?to=tags&value=north&action=setTemperature", ".choice"),
        ("group", f"#/groups/{group}", ".group-view .legend"),
        ("groups", "#/groups", ".entries"),
        ("things", "#/things", ".canvas .tr"),
        ("thing", f"#/things/{thing}", ".actions-list"),
        ("clients", "#/clients", ".canvas .tr"),
        ("client", "#/clients/dashboard%2Fhall", ".subscriptions"),
        ("settings", "#/settings", ".tabs"),
        ("types", "#/settings/types", ".entries"),
        ("type", "#/settings/types/thermostat", "#type-json"),
        ("tokens", "#/settings/tokens", ".entries"),
    ]


def mqtt_clients(now):
    """Some things, one of them away, and a program that reads too slowly."""
    for number in range(1, 7):
        name = f"thermostat-north-{number:02}"
        yield MqttClient(
            client_id=f"{name}/agent",
            connected=number != 4,
            username=name,
            thing=name,
            version=None if number == 4 else "3.1.1",
            address=None if number == 4 else f"192.0.2.{number}:5{number}112",
            carrier=None if number == 4 else Carrier.TLS,
            connected_at=now - 3600 * number,
            heard_at=now - number,
            away_since=now - 600 if number == 4 else None,
            keep_alive=60,
            session_expiry=7 * 86400,
            subscriptions=2,
            queued_messages=12 if number == 4 else 0,
            waiting_bytes=5200 if number == 4 else 0,
        )
    yield MqttClient(
        client_id="dashboard/hall",
        connected=True,
        username="dashboard",
        version="5",
        address="192.0.2.40:50112",
        carrier=Carrier.WEBSOCKET,
        connected_at=now - 7200,
        heard_at=now - 2,
        keep_alive=30,
        subscriptions=2,
        filters=(
            ClientSubscription("sensors/#", 0, retain_as_published=True, subscription_id=1),
            ClientSubscription("alarms/+/state", 1, no_local=True),
        ),
        in_flight=20,
        waiting_bytes=3_400_000,
        bytes_received=48_000,
        bytes_sent=91_000_000,
        dropped={"slowReader": 1480, "expired": 3},
    )


def roll_out(demo, api):
    """A command to all of one site; two of its things fail."""
    targets = {"tags": ["north"]}
    body = {"targets": targets, "action": "setTemperature", "params": {"value": 20}, "rollout": {"batch": 4}}
    _, group = api.call("POST", "commands", body)
    soon(lambda: len(api.executions(commandId=group["commandId"])) >= 4)
    first, second, third, *_ = api.executions(commandId=group["commandId"])
    reason = {"reasonCode": "HANDLER_FAILED", "reasonDescription": "OSError: the valve does not answer"}
    for execution, answer in (
        (first, {"status": "FAILED", "statusReason": reason}),
        (second, {"status": "SUCCEEDED", "result": {"currentTemperature": 20.5}}),
        (third, {"status": "SUCCEEDED", "result": {"currentTemperature": 20.0}}),
    ):
        demo.call(demo.respond, demo.service.get(execution["executionId"]), **answer)
    return group["commandId"]


def ask_before_many(page):
    """The question before a command to many things."""
    page.evaluate("location.hash = '#/send?to=tags&value=north&action=setTemperature'")
    page.get_by_label("value").fill("99")
    page.get_by_role("button", name="Edit as JSON").click()
    page.get_by_label("Parameters as JSON").fill('{"value": 20, "mode": "eco"}')
    page.get_by_role("button", name="Send command").click()
    page.get_by_role("dialog").wait_for()


def main(folder: Path) -> int:
    """Write the pictures to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with serving_demo() as demo, launched() as browser:
        demo.call(live_an_hour, demo)
        places = scenes(demo)
        for size, options in SIZES.items():
            context = browser.new_context(**options)
            page = context.new_page()
            page.goto(demo.url)
            page.get_by_label("API token").wait_for()
            page.screenshot(path=folder / f"sign-in-{size}.png")
            page.get_by_label("API token").fill(TOKEN)
            page.keyboard.press("Enter")
            page.locator(".tile").first.wait_for()
            for name, place, there in places:
                page.evaluate("place => { location.hash = place }", place)
                page.locator(there).first.wait_for()
                page.wait_for_timeout(400)  # fonts and bars come to rest
                page.screenshot(path=folder / f"{name}-{size}.png")
            page.evaluate("place => { location.hash = place }", "#/things")
            page.get_by_role("button", name="Add thing").click()
            page.get_by_label("Name").fill(f"thermostat-{size}")
            page.screenshot(path=folder / f"add-thing-{size}.png")
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Done").wait_for()
            page.screenshot(path=folder / f"bundle-{size}.png")
            page.get_by_role("button", name="Done").click()
            ask_before_many(page)
            page.screenshot(path=folder / f"ask-{size}.png")
            context.close()
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")))
