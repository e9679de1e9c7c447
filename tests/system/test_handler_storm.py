"""Handlers that misbehave in every way known: each command ends, no place is lost, memory comes back.

``THINGCTL_MISBEHAVIOUR=500`` makes it longer, ``THINGCTL_MISBEHAVIOUR_SEED`` repeats one.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.harness import AgentProcess, Tracker, mosquitto, until

pytestmark = pytest.mark.system

COMMANDS = int(os.environ.get("THINGCTL_MISBEHAVIOUR", "90"))
SEED = int(os.environ.get("THINGCTL_MISBEHAVIOUR_SEED", "0")) or random.randrange(2**32)
KILL_EVERY = 45
RSS_KIB = 3 * 1024

EXCEPTIONS = {
    "plain": "ValueError('x')",
    "exit": "SystemExit(3)",
    "interrupt": "KeyboardInterrupt()",
    "surrogate": "ValueError(os.fsdecode(b'caf\\xe9'))",
    "unformattable": "unformattable()",
    "unspeakable": "Unspeakable()",
    "bare reject": "BareReject('front')",
    "bare failure": "BareFailure('bolt')",
    "odd reason": "Reject(5, object())",
    "details": "CommandFailed('x', what=object())",
    "group": "BaseExceptionGroup('g', [SystemExit(1), ValueError(2)])",
    "recursion": "recurse()",
    "memory": "MemoryError()",
    "generator exit": "GeneratorExit()",
}
RESULTS = {
    "bytes": "b'\\xff'",
    "object": "object()",
    "nan": "[float('nan')]",
    "raw": """msgspec.Raw(b'1,"status":"REJECTED"')""",
    "generator": "(n for n in range(3))",
    "coroutine": "asyncio.sleep(0, 'slept')",
    "itself": "itself()",
    "megabytes": "'x' * 3_000_000",
    "deep": "deep()",
    "surrogate": "os.fsdecode(b'caf\\xe9')",
    "class": "Unspeakable",
}
BOTH = {
    "close 0": "os.close(0)",
    "close 0 twice": "os.close(0); os.open('/dev/null', 0)",
    "close stderr": "sys.stderr.close()",
    "no stderr": "sys.stderr = None",
    "chdir": "os.chdir('/')",
    "environ": "os.environ.clear()",
    "default time-out": "socket.setdefaulttimeout(0.001)",
    "prints": "sys.__stdout__.write('x' * 100_000)",
    "progress flood": "[ctx.progress(n % 100, 'x' * 1000) for n in range(20_000)]",
    "progress of a wrong type": "ctx.progress('half', 5)",
    "save flood": "[ctx.save('x' * 1000) for n in range(2_000)]",
    "save too much": "ctx.save('x' * 10_000_000)",
    "log flood": "[ctx.log.info('x' * 100, n=n) for n in range(2_000)]",
    "log surrogate": "ctx.log.info('file', name=os.fsdecode(b'caf\\xe9'), odd=Unspeakable())",
    "fork": "child() if not (pid := os.fork()) else os.waitpid(pid, 0)",
    "thread": "threading.Thread(target=time.sleep, args=(0.2,)).start()",
    "raising thread": "threading.Thread(target=int, args=('x',)).start()",
    "warnings": "warnings.simplefilter('error')",
    "garbage": "gc.set_threshold(1)",
    "no exception hook": "setattr(threading, 'excepthook', None)",
    "program": "ctx.run(['sh', '-c', 'seq 100000; exit 3'])",
    "daemon": "ctx.run(['sh', '-c', 'sleep 0.5 & echo started'])",
    "no program": "ctx.run([os.fsdecode(b'/opt/caf\\xe9')])",
    "rebooting": "ctx.rebooting()",
}
ASYNC = {
    "cancels itself": "asyncio.current_task().cancel()",
    "cancels all": "[task.cancel() for task in asyncio.all_tasks()]",
    "exits in a task": "await asyncio.create_task(exits())",
    "exits later": "asyncio.get_running_loop().call_soon(sys.exit, 1); await asyncio.sleep(0.05)",
    "stops the loop": "asyncio.get_running_loop().stop(); await asyncio.sleep(0.01)",
    "closes the loop": "asyncio.get_running_loop().close()",
    "task of its own": "asyncio.create_task(exits())",
    "callback": "asyncio.get_running_loop().call_soon(int, 'x')",
    "blocks": "time.sleep(0.3)",
    "to thread": "await asyncio.to_thread(time.sleep, 0.3)",
    "ignores the end": "[await hold() for _ in range(3)]",
}
SYNC = {
    "hangs": "time.sleep(2.5)",
    "spins": "spin(2.0)",
    "swallows": "swallow(ctx)",
    "runs a loop": "asyncio.run(exits())",
}
HEAD = """
import asyncio, gc, msgspec, os, socket, sys, threading, time, warnings
from thingctl_agent import Agent, CommandFailed, Context, Reject

agent = Agent()

class Unspeakable(Exception):
    def __str__(self): raise SystemExit(4)
    __repr__ = __str__

class BareReject(Reject):
    def __init__(self, door): self.door = door

class BareFailure(CommandFailed):
    def __init__(self, bolt): self.bolt = bolt

def unformattable():
    error = SyntaxError("x")
    error.text = 5
    return error

def recurse(): return recurse()

def itself():
    value = []
    value += [value, value]
    return value

def deep():
    value = []
    for _ in range(500): value = [value]
    return value

def child():
    time.sleep(0.05)
    os._exit(0)

def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until: pass

def swallow(ctx):
    try: ctx.sleep(2.5)
    except BaseException: time.sleep(0.3)

async def exits(): sys.exit(1)

async def hold():
    try: await asyncio.sleep(1)
    except asyncio.CancelledError: pass

@agent.action(durable=False)
def ping() -> str: return "pong"

@agent.action(durable=False)
async def aping() -> str: return "pong"
"""


class Kind(NamedTuple):
    """One bad handler."""

    name: str
    is_async: bool
    body: str


def kinds() -> list[Kind]:
    bodies = [
        *((f"raises {name}", f"raise {text}") for name, text in EXCEPTIONS.items()),
        *((f"returns {name}", f"return {text}") for name, text in RESULTS.items()),
        *BOTH.items(),
    ]
    both = [Kind(name, is_async, body) for name, body in bodies for is_async in (False, True)]
    return [
        *both,
        *(Kind(name, True, body) for name, body in ASYNC.items()),
        *(Kind(name, False, body) for name, body in SYNC.items()),
    ]


def source(handlers: list[Kind]) -> str:
    parts = [HEAD]
    for number, kind in enumerate(handlers):
        head = "async def" if kind.is_async else "def"
        parts.append(
            f"@agent.action(timeout=1)\n{head} bad{number}(ctx: Context) -> object:\n    {kind.body}\n"
        )
    return "\n".join(parts)


def memory(pid: int) -> int:
    """KiB of RSS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Storm:
    """One agent with bad handlers, and what became of each command."""

    def __init__(
        self, agent: AgentProcess, tracker: Tracker, handlers: list[Kind], chance: random.Random
    ) -> None:
        self.agent = agent
        self.tracker = tracker
        self.handlers = handlers
        self.chance = chance
        self.ends: collections.Counter[str] = collections.Counter()

    def blow(self) -> None:
        """Send the commands, in bursts; kill -9 now and then."""
        for first in range(0, COMMANDS, KILL_EVERY):
            order = [
                self.chance.randrange(len(self.handlers)) for _ in range(min(KILL_EVERY, COMMANDS - first))
            ]
            killed_after = self.chance.randrange(len(order)) if first else -1
            sent = {}
            for place, number in enumerate(order):
                sent[self.tracker.request("bad", f"bad{number}", ttl=15)] = self.handlers[number]
                time.sleep(self.chance.random() * 0.02)
                if place == killed_after:
                    self.agent.kill()
                    self.agent.start()
            for execution_id, kind in sent.items():
                self.judge(kind, self.tracker.final(execution_id, 30))

    def judge(self, kind: Kind, answer: dict) -> None:
        code = answer.get("statusReason", {}).get("reasonCode", "")
        self.ends[f"{answer['status']} {code}".strip()] += 1
        assert answer["status"] in {"SUCCEEDED", "FAILED", "REJECTED", "CANCELED"}, (kind, answer)
        if kind.name.startswith("raises"):
            assert answer["status"] != "SUCCEEDED", (kind, answer)

    def calm(self) -> None:
        """Every place is free again: each action takes a command, beside one that is well."""
        for number, kind in enumerate(self.handlers):
            last: dict = {}

            def taken(number: int = number, last: dict = last) -> bool:
                last |= self.tracker.do("bad", f"bad{number}", ttl=15)
                return last.get("statusReason", {}).get("reasonCode") != "BUSY"

            until(taken, 15, f"a place for {kind}")
            self.judge(kind, last)
        for action in ("ping", "aping"):
            assert self.tracker.do("bad", action)["result"] == "pong"


def test_misbehaving_handlers_cost_nobody_else_anything(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    handlers = kinds()
    with (
        mosquitto(tmp_path) as broker,
        Tracker(broker.port) as tracker,
        AgentProcess(source(handlers), broker.url, tmp_path / "s", thing="bad") as agent,
    ):
        storm = Storm(agent, tracker, handlers, chance)
        storm.blow()
        storm.calm()
        settled = memory(agent.pid)
        storm.calm()
        until(lambda: memory(agent.pid) - settled < RSS_KIB, 10, "the memory's return")
        print(dict(storm.ends))
        code, seconds = agent.stop(signal.SIGTERM)
        assert code == 0
        assert seconds < 3
