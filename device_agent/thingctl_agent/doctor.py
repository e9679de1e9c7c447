"""``thingctl-agent check``: says in words what is wrong, in the order in which to mend it."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingctl_agent import actions, boot
from thingctl_agent.actions.reboot import file_system
from thingctl_agent.agent import Agent
from thingctl_agent.config import load
from thingctl_agent.errors import AgentError, ConfigError, JournalError
from thingctl_agent.journal import Journal
from thingctl_agent.mqtt import CONNECT_TIMEOUT, Address, Connection
from thingctl_agent.sources import agents_in
from thingctl_agent.tls import Contexts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_agent.config import Config

OK, NOTE, WRONG = "ok   ", "note ", "WRONG"


def check(path: str | None, settings: dict[str, Any], files: list[str]) -> int:
    """Run all checks and print what they find; returns 1 if anything is wrong, else 0.

    ``path``: of the config; ``settings`` win over it. ``files``: with agents in them.
    """
    try:
        config = load(path, os.environ, **settings)
    except ConfigError as error:
        print(f"{WRONG} {error}")
        return 1
    wrong = 0
    for verdict, text in findings(config, files):
        print(f"{verdict} {text}", flush=True)
        wrong += verdict == WRONG
    print("\nall is well" if not wrong else f"\n{wrong} thing(s) to mend")
    return 1 if wrong else 0


def findings(config: Config, files: list[str]) -> Iterator[tuple[str, str]]:
    """Each check's verdict and sentence."""
    yield OK, f"settings: thing {config.thing!r}, broker {config.url.rsplit('@', 1)[-1]}"
    yield from _handlers(config, files or list(config.handlers))
    running = False
    for verdict, text in _state(config):
        running = running or "is running" in text
        yield verdict, text
    yield from _clock(config)
    yield from _network(config, running=running)


def _handlers(config: Config, files: list[str]) -> Iterator[tuple[str, str]]:
    agent = Agent()
    for file in files:
        try:
            for found in agents_in(file):
                agent.registry.extend(found.registry)
        except AgentError as error:
            yield WRONG, f"handlers: {error}"
            return
    try:
        actions.enable(agent.registry, config.actions)
    except AgentError as error:
        yield WRONG, f"built-in actions: {error}"
        return
    names = ", ".join(action.name for action in agent.registry)
    yield (OK, f"actions: {names}") if names else (NOTE, "there is no action: every command will be refused")


def _state(config: Config) -> Iterator[tuple[str, str]]:
    directory = Path(config.state)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(directory / "journal", boot.boot_id())
    except JournalError:
        yield NOTE, f"an agent is running with {directory}; its connection is left alone"
        return
    except OSError as error:
        yield WRONG, f"state directory {directory}: {error.strerror}; the agent must be able to write there"
        return
    known, damage = len(journal.history), journal.damage
    journal.close()
    if damage:
        yield NOTE, f"the journal was damaged and has been written anew: {damage}"
    yield OK, f"state directory {directory}: {known} execution(s) remembered"
    if file_system(str(directory)) in {"tmpfs", "ramfs"}:
        yield WRONG, f"{directory} is in memory: after a reboot a command could be run again"


def _clock(config: Config) -> Iterator[tuple[str, str]]:
    if config.wall_clock == "trust" or boot.clock_is_synchronised():
        yield OK, "clock: the age of a command can be told even if the broker does not say its time"
    else:
        yield (
            NOTE,
            "clock: not synchronised; unless the broker says its time, commands are rejected as EXPIRED",
        )
    if not boot.boot_id():
        yield NOTE, "this system has no boot id: a reboot cannot be confirmed"


def _network(config: Config, *, running: bool) -> Iterator[tuple[str, str]]:
    broker = config.broker
    try:
        found = socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield WRONG, f"the name {broker.host!r} cannot be resolved: {error}"
        return
    yield OK, f"{broker.host} is {found[0][4][0]}"
    try:
        with socket.create_connection((broker.host, broker.port), CONNECT_TIMEOUT):
            pass
    except OSError as error:
        yield WRONG, f"no TCP connection to {broker.host}:{broker.port}: {error}"
        return
    yield OK, f"{broker.host}:{broker.port} accepts connections"
    if running:
        return
    problem = _connect(config)
    yield (WRONG, problem) if problem else (OK, "the broker accepts this thing")


class _Listener:
    """Learns whether the broker accepts the connection, and takes nothing else from it."""

    def __init__(self) -> None:
        self.connected = False
        self.problem = ""

    def on_connected(self) -> None:
        self.connected = True

    def on_subscribed(self, *, extras: bool) -> None:
        """It does not subscribe."""

    def on_message(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """It reads nothing after CONNACK."""

    def on_acknowledged(self, receipt: str) -> None:
        """It publishes nothing."""

    def on_lost(self, reason: str) -> None:
        self.problem = reason


def _connect(config: Config) -> str:
    """CONNECT as the agent would; returns what is wrong.

    The session may hold requests. One that arrived here would be acknowledged and lost, so
    the socket is closed on CONNACK, before anything else is read.
    """
    broker, listener = config.broker, _Listener()
    try:
        username, password = config.username or broker.username, config.secret or broker.password
        address = Address(broker.host, broker.port, config.thing, username, password, config.keepalive)
        connection = Connection(address, listener, Contexts(config.tls).current() if broker.tls else None)
        connection.open()
    except Exception as error:  # a certificate or name may raise anything
        return f"no {'TLS ' if broker.tls else ''}connection: {error}"
    deadline = boot.since_boot() + CONNECT_TIMEOUT
    connection.begin(boot.since_boot())
    while not listener.connected and not listener.problem:
        connection.serve(boot.since_boot(), readable=False)
        remaining = max(0.0, deadline - boot.since_boot())
        readable = bool(select.select([connection.fileno()], [], [], remaining)[0])
        connection.serve(boot.since_boot(), readable=readable)
    connection.drop()
    return listener.problem
