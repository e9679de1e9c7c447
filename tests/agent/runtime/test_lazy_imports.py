"""Modules that come late are whole when they come, and importing the package installs none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.harness import ROOT


def run(code, given=""):
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_installs_nothing():
    assert (
        run(
            "import thingctl_agent, sys; print([m for m in sys.modules.values() if type(m).__name__ == '_Late'])"
        )
        == "[]\n"
    )


USES = [
    "import asyncio; asyncio.run(asyncio.sleep(0))",
    "import asyncio.subprocess; asyncio.subprocess.PIPE",
    "from asyncio import events; events.get_event_loop_policy",
    "import urllib.request; urllib.request.Request('http://x')",
    "from urllib.request import Request",
    "import urllib; urllib.request.Request",
    "import ssl; ssl.create_default_context()",
    "import hashlib; assert hashlib.sha256(b'').hexdigest()[:4] == 'e3b0'",
    "import inspect; inspect.signature(print)",
    "import ipaddress; ipaddress.ip_address('::1')",
    "import base64; base64.b64encode(b'x')",
    "import tokenize; tokenize.generate_tokens",
    "import traceback; traceback.format_stack()",
    "import structlog; structlog.stdlib.BoundLogger",
    "from structlog.stdlib import BoundLogger",
    "import http.client; http.client.HTTPSConnection",
    "import importlib; importlib.import_module('asyncio').run",
    "import asyncio; dir(asyncio); assert 'run' in dir(asyncio)",
    "import logging; logging.getLogger('x').warning; assert logging.INFO == 20",
    "from logging import INFO, getLogger; getLogger('x').info('x')",
    "import logging.handlers; logging.handlers.QueueHandler; logging.getLogger",
    "import logging, logging.config; logging.config.dictConfig({'version': 1})",
    "from logging.handlers import MemoryHandler; import logging; logging.Handler",
    "import pickle; assert pickle.loads(pickle.dumps([1])) == [1]; issubclass(pickle.PicklingError, pickle.PickleError)",
    "import multiprocessing, multiprocessing.pool, concurrent.futures; concurrent.futures.ThreadPoolExecutor(1)",
    "import copy; copy.deepcopy({1: [2]})",
    "import typing_extensions; typing_extensions.TypedDict",
    "import random, secrets, uuid; secrets.token_hex(); uuid.uuid5(uuid.NAMESPACE_DNS, 'x'); random.random()",
    (
        "import threading, asyncio\n"
        "def f(): asyncio.Event\n"
        "ts = [threading.Thread(target=f) for _ in range(8)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]"
    ),
]

EACH_IN_A_PROCESS_OF_ITS_OWN = """
import os, sys, traceback
from thingctl_agent.runtime import lazy_imports
lazy_imports.install()
import thingctl_agent.runtime.loop, thingctl_agent.setup.cli
for use in eval(sys.stdin.read()):
    child = os.fork()
    if not child:
        try:
            exec(use, {})
        except BaseException:
            print(use)
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_modules_that_came_late_are_whole():
    assert run(EACH_IN_A_PROCESS_OF_ITS_OWN, repr(USES)) == ""


def test_an_idle_agent_has_not_loaded_them():
    out = run(
        "import sys\nsys.modules['rich'] = None  # a device has none\n"
        "from thingctl_agent.runtime import lazy_imports as lean\nlean.install()\nimport thingctl_agent.runtime.loop, thingctl_agent.runtime.journal\n"
        "print(sorted(n for n in lean.LATE if type(sys.modules[n]).__name__ == '_Late'))"
    )
    for name in ("asyncio", "ssl", "urllib.request", "hashlib", "logging", "pickle"):
        assert f"'{name}'" in out


def test_an_agent_beside_the_command_line_does_not_load_what_prints_it():
    """rich is there when the extra ``broker`` is installed beside the agent."""
    pytest.importorskip("rich")
    out = run(
        "import sys\nfrom thingctl_agent.runtime import lazy_imports as lean\nlean.install()\nimport thingctl_agent.runtime.loop\n"
        "print([name for name in ('rich', 'pygments') if name in sys.modules])\n"
        "import rich.console\nprint(rich.console.Console.__name__)"
    )
    assert out == "[]\nConsole\n"


def test_what_msgspec_does_not_need_is_not_loaded_and_means_the_same():
    """typing_extensions is there when an extra is installed beside the agent."""
    pytest.importorskip("typing_extensions")
    out = run(
        "import sys, thingctl_agent\nprint('typing_extensions' in sys.modules)\n"
        "import msgspec\nfrom typing_extensions import Annotated, NotRequired, TypedDict\n"
        "class Point(TypedDict):\n    x: int\n    y: NotRequired[Annotated[int, msgspec.Meta(ge=1)]]\n"
        "for text in (b'{\"x\":1}', b'{\"x\":1,\"y\":0}', b'{}'):\n"
        "    try: print(msgspec.json.decode(text, type=Point))\n"
        "    except msgspec.ValidationError as error: print(error)\n"
    )
    said = out.splitlines()
    assert said[:2] == ["False", "{'x': 1}"]
    assert said[2].startswith("Expected `int` >= 1")
    assert "missing required field `x`" in said[3]


NEVER_AT_WORK = (
    "argparse",
    "difflib",
    "tempfile",
    "thingctl_agent.setup.install",
    "thingctl_protocol.bundle",
)

START = """
import os, sys
sys.modules["rich"] = None  # a device has none
from thingctl_agent import Agent, agent
from thingctl_agent.setup import cli
def serve(*_):
    print([name for name in {never} if name in sys.modules])
    return 0
agent.serve = serve
for key in list(os.environ):
    if key.startswith("THINGCTL_"):
        del os.environ[key]
{how}
"""


@pytest.mark.parametrize(
    "how",
    [
        f"cli.main(['run', {str(ROOT / 'examples' / 'thermostat.py')!r}, '--thing', 't', '--url=mqtt://h', '--ca', ''])",
        "Agent().run(argv=['--thing', 't', '--password-file', 'f'])",
    ],
)
def test_a_plain_start_loads_nothing_that_only_other_starts_need(how):
    assert run(START.format(never=NEVER_AT_WORK, how=how)) == "[]\n"


def test_a_module_that_is_not_loaded_is_found():
    find = "importlib.util.find_spec(name).origin == importlib.import_module(name).__spec__.origin"
    code = f"""
import importlib, importlib.util
from thingctl_agent.runtime import lazy_imports
lazy_imports.install()
import structlog
print(all({find} for name in lazy_imports.LATE))
print(any(type(importlib.import_module(name)).__name__ == "_Late" for name in lazy_imports.LATE))
"""
    assert run(code) == "True\nTrue\n"
