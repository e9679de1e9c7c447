"""Completion on the TAB key, by the real shells."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.http.running import TOKEN
from support.needs import missing
from thingctl_broker.cli.completion import _ALPHABET, _before
from thingctl_broker.things.mqtt_clients import MqttClient

BASH = """
source <(thingctl completion bash)
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}
_thingctl_completion thingctl
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { :; }
_describe() { print -l -- "${(@P)2}"; }
_files() { :; }
source <(thingctl completion zsh)
words=(${(z)1}); [[ $1 == *' ' ]] && words+=('')
CURRENT=$#words
_thingctl
"""
FISH = """
thingctl completion fish | source
complete --do-complete "$argv[1]"
"""
SHELLS = {"bash": (BASH, "-s"), "zsh": (ZSH, "-s"), "fish": (FISH, None)}


class Shell:
    """A shell in which thingctl is installed."""

    def __init__(self, name, environ):
        if shutil.which(name) is None:
            missing(f"{name} is not installed (apt-get install {name})")
        self.name = name
        self.environ = environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def __call__(self, line):
        script = SHELLS[self.name][0]
        options = ["--no-config"] if self.name == "fish" else ["-f"] if self.name == "zsh" else ["--norc"]
        command = [self.name, *options, "-c", script, *([] if self.name == "fish" else ["shell"]), line]
        ran = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=30, check=False
        )
        assert ran.stderr == ""
        return [word for word in ran.stdout.splitlines() if word]

    def words(self, line):
        """The words that are offered, without what they mean."""
        separator = ":" if self.name == "zsh" else "\t"
        return [word.replace("\\:", "\0").split(separator)[0].replace("\0", ":") for word in self(line)]


@pytest.fixture(params=SHELLS)
def shell(request, api, cli):
    return Shell(request.param, cli.environ)


def announce(api, thing, *names):
    api.connect(thing)
    listed = ",".join(f'{{"name":"{name}"}}' for name in names)
    api.call(api.service.announce, thing, f'{{"actions":[{listed}]}}'.encode())


def test_ids_of_mqtt_clients_are_offered(api, shell):
    for client_id in ("lamp/attic", "lock/1", "@dash/1"):
        api.clients.all[client_id] = MqttClient(client_id=client_id, connected=True)
    assert shell.words("thingctl clients kick la") == ["lamp/attic"]
    assert shell.words("thingctl clients show lo") == ["lock/1"]


def test_names_come_from_the_broker(api, shell):
    announce(api, "lamp", "turnOn", "turnOff", "blink")
    execution = api.send("lamp", "turnOn")["executionId"]
    assert shell.words("thingctl send la") == ["lamp"]
    assert sorted(shell.words("thingctl send lamp turn")) == ["turnOff", "turnOn"]
    assert sorted(shell.words("thingctl send lamp ")) == ["blink", "turnOff", "turnOn"]
    assert shell.words("thingctl things show lo") == ["lock"]
    assert shell.words("thingctl tokens remove a") == ["admin"]
    assert shell.words("thingctl show ") == [execution]
    assert shell.words("thingctl list --status SUC") == ["SUCCEEDED"]
    assert shell.words("thingctl wat") == ["watch"]
    assert "--wait" in shell.words("thingctl send --w")
    assert shell.words("thingctl completion z") == ["zsh"]


def test_a_name_with_a_colon_is_completed(api, cli):
    api.know("hall:lamp")
    api.know("hall:lock")
    shell = Shell("bash", cli.environ)
    assert shell.words("thingctl send hall:l") == ["lamp", "lock"]  # bash replaces the last part only


def test_names_are_bounded_and_those_with_the_prefix_are_found(api, cli):
    for number in range(450):
        api.know(f"hall-{number:04}")
    api.know("pump")
    shell = Shell("bash", cli.environ)
    assert len(shell.words("thingctl send hall")) == 200
    assert shell.words("thingctl send hall-0449") == ["hall-0449"]
    assert shell.words("thingctl send pu") == ["pump"]


def test_a_broker_that_is_not_there_or_says_nothing_is_silent_and_quick(api, cli):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in ("http://127.0.0.1:1", f"http://127.0.0.1:{silent.getsockname()[1]}", "nonsense"):
            shell = Shell("bash", cli.environ | {"THINGCTL_URL": url, "THINGCTL_TOKEN": TOKEN})
            began = time.monotonic()
            assert shell.words("thingctl send la") == []
            assert time.monotonic() - began < 6, "the time-out is 1 s; the rest is start-up on a busy machine"


@given(st.text(_ALPHABET, min_size=1, max_size=5), st.text(_ALPHABET, max_size=3))
def test_what_is_asked_for_begins_before_all_names_with_the_prefix(prefix, rest):
    assert _before(prefix) < prefix + rest
