"""The main job, for real: a broker, a device, one command, its result, and the console.

Started by ``make run``. Each part is a process of its own and they talk over TCP, as they
would on three machines. Ctrl-C ends all of them.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

EXAMPLES = Path(__file__).parent
THINGCTL = Path(sys.executable).parent / "thingctl"
THING = "thermostat-001"
DEADLINE = 20.0


def main() -> int:
    """Run the demonstration, then serve until a signal comes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="thingctl-"))
        try:
            say("starting a broker")
            broker = start(stack, THINGCTL, "serve", "--open", *ports(), "--data-dir", directory, read=True)
            told = read_addresses(broker)
            say(f"starting a device: examples/thermostat.py as {THING}, over {told['mqtt']}")
            device = start(
                stack,
                sys.executable,
                EXAMPLES / "thermostat.py",
                THINGCTL_THING=THING,
                THINGCTL_MQTT_URL=told["mqtt"],
                THINGCTL_STATE_DIR=f"{directory}/device",
            )
            wait_until_online(told, [broker, device])
            client = {"THINGCTL_URL": told["http"], "THINGCTL_TOKEN": told["token"]}
            say("sending it a command, which the broker accepts as SENT:")
            said = show(client, "send", THING, "setTemperature", "value=24")
            say("watching it until it ends:")
            show(client, "watch", said.split()[-1])
            tell_what_to_try(told, sign_in_link(client))
            while broker.poll() is None and device.poll() is None:
                time.sleep(0.2)
            raise RuntimeError("a process has ended by itself")  # noqa: TRY301
        except Stopped:
            say("ending the device and the broker")
            return 0
        except RuntimeError as error:
            print(f"thingctl: {error}", file=sys.stderr)
            return 1


class Stopped(Exception):
    """A signal asks for the end."""


def stop(*_: object) -> None:
    """End, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def say(text: str) -> None:
    """Tell the person what happens."""
    print(f"==> {text}", flush=True)


def ports() -> list[str]:
    """The ports to listen on: free ones, so that nothing else on this machine is in the way."""
    return ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]


def start(
    stack: ExitStack, *command: object, read: bool = False, **environment: str
) -> subprocess.Popen[str]:
    """Start a process that ends with this one."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env=os.environ | environment,
        stdout=subprocess.PIPE if read else None,
        text=True,
        start_new_session=True,  # so that Ctrl-C reaches them through us, the device first
    )
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, and see to it that it does."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def read_addresses(broker: subprocess.Popen[str]) -> dict[str, str]:
    """Read what the broker tells when it serves: a word and a value on each line."""
    told: dict[str, str] = {}
    assert broker.stdout is not None
    while "token" not in told:
        line = broker.stdout.readline()
        if not line:
            raise RuntimeError("the broker did not start; its reason stands above")
        word, value, *_ = [*line.split(), "", ""]
        told[word] = value
    return told


def wait_until_online(told: dict[str, str], processes: list[subprocess.Popen[str]]) -> None:
    """Wait until the broker knows the device."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            raise RuntimeError("a process ended before it was ready; its reason stands above")
        connection = http.client.HTTPConnection(told["http"].removeprefix("http://"), timeout=5)
        try:
            headers = {"Authorization": f"Bearer {told['token']}"}
            connection.request("GET", f"/api/v1/things/{THING}", headers=headers)
            answer = connection.getresponse()
            if answer.status == 200 and json.load(answer)["online"]:
                return
        finally:
            connection.close()
        time.sleep(0.05)
    raise RuntimeError("the device did not connect")


def show(environment: dict[str, str], *arguments: str) -> str:
    """Run a command of thingctl's as a person would; show both, and return what it said."""
    print(f"$ thingctl {' '.join(arguments)}", flush=True)
    said = run(environment, *arguments)
    print(said, flush=True)
    return said


def sign_in_link(environment: dict[str, str]) -> str:
    """Return a link that signs a browser in to the console, once."""
    link: str = json.loads(run(environment, "console", "--json"))["url"]
    return link


def run(environment: dict[str, str], *arguments: str) -> str:
    """Run a command of thingctl's; return what it said."""
    command = [str(THINGCTL), *arguments]
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"thingctl {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout


def tell_what_to_try(told: dict[str, str], link: str) -> None:
    """Say how to go on from here."""
    say("serving; Ctrl-C ends everything")
    print(
        f"""
The console, signed in (this link works once, within 5 minutes; "thingctl console" makes another):

    {link}

In another terminal:

    export THINGCTL_URL={told["http"]}
    export THINGCTL_TOKEN={told["token"]}
    .venv/bin/thingctl send {THING} setTemperature value=19 --wait
    curl -H "Authorization: Bearer $THINGCTL_TOKEN" $THINGCTL_URL/api/v1/commands

    MQTT  {told["mqtt"]}   (a device may call itself anything here)
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
