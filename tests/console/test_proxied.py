"""The console and devices behind HAProxy, with the settings that docs/operations.md shows."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from urllib.parse import urljoin

import pytest
from playwright.sync_api import expect

from agent.harness import free_port
from console.devices import Device
from console.looking import Looking
from support.haproxy import haproxy, program, recipe
from support.processes import TOKEN, serving
from support.waits import soon


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """A broker behind HAProxy; gives the URL that operators have and the address that devices have."""
    folder = tmp_path_factory.mktemp("proxied")
    settings = folder / "broker.toml"
    settings.write_text(
        '[http]\ntrusted_proxies = ["127.0.0.1"]\n[mqtt]\nproxy_protocol_from = ["127.0.0.1"]\n'
    )
    web, mqtt = free_port(), free_port()
    with serving(folder / "data", "--config", str(settings)) as broker:
        text = recipe(
            web=web,
            mqtt=mqtt,
            http_broker="{}:{}".format(*broker.http_address),
            mqtt_broker="{}:{}".format(*broker.mqtt_address),
        )
        with haproxy(folder, text, web, mqtt):
            yield f"http://127.0.0.1:{web}/thingctl", ("127.0.0.1", mqtt)


def test_the_recipe_is_sound(tmp_path):
    config = tmp_path / "haproxy.cfg"
    config.write_text(recipe(web=1, mqtt=2, http_broker="127.0.0.1:3", mqtt_broker="127.0.0.1:4"))
    checked = subprocess.run([program(), "-c", "-f", config], capture_output=True, text=True, check=False)
    assert (checked.returncode, "WARNING" in checked.stderr) == (0, False), checked.stderr


def test_a_command_is_sent_and_followed_under_the_prefix(browser, proxied):
    url, mqtt = proxied
    device = Device("lamp", mqtt)
    looking = Looking(browser, url, TOKEN)
    page = looking("#/send?thing=lamp&action=turnOn")
    form = page.get_by_role("form", name="Send command")
    form.get_by_role("button", name="Send command").click()
    soon(lambda: device.requests)
    (execution_id,) = device.requests
    device.respond(execution_id, "SUCCEEDED")
    expect(page.get_by_text("Succeeded").first).to_be_visible()  # as the live stream has told
    assert all(asked.startswith(f"{url}/") for asked in looking.requests), looking.requests
    page = looking("#/things")
    expect(page.get_by_text("lamp").first).to_be_visible()
    looking.close()
    device.close()


def test_the_page_is_found_without_the_slash(browser, proxied):
    url, _ = proxied
    looking = Looking(browser, url, TOKEN)
    page = looking.context(signed_in=False).new_page()
    page.goto(url)
    expect(page.get_by_label("API token")).to_be_visible()
    assert page.url.startswith(f"{url}/")
    looking.close()


def test_a_generated_client_finds_the_api_from_its_description(proxied):
    url, _ = proxied
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as response:
        described = json.load(response)
        server = urljoin(response.url, described["servers"][0]["url"])
    assert server == f"{url}/"
