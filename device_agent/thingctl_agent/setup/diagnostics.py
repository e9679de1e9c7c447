"""``thingctl-agent check``: says what is wrong, in the order in which to mend it."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingctl_agent import actions
from thingctl_agent.actions.reboot import file_system
from thingctl_agent.agent import Agent
from thingctl_agent.errors import AgentError, ConfigError, JournalError
from thingctl_agent.runtime import boot_id as boot
from thingctl_agent.runtime import reasons
from thingctl_agent.runtime.address import address_of
from thingctl_agent.runtime.config import load
from thingctl_agent.runtime.journal import CallJournal
from thingctl_agent.runtime.mqtt import CONNECT_TIMEOUT, MqttConnection
from thingctl_agent.runtime.settings import MISNAMED_URL, misnamed_url
from thingctl_agent.runtime.tls import Contexts
from thingctl_agent.setup import service, systemd_unit
from thingctl_agent.setup.handler_loader import agents_in
from thingctl_agent.setup.terminal import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_agent.runtime.address import BrokerAddress
    from thingctl_agent.runtime.config import Config

OK, NOTE, WRONG = "ok   ", "note ", "WRONG"


def check(path: str | None, settings: dict[str, Any], files: list[str]) -> int:
    """Run all checks and print what they find; returns 1 if anything is wrong, else 0.

    ``path``: of the config; ``settings`` win over it. ``files``: with agents in them.
    """
    path = path or os.environ.get("THINGCTL_CONFIG")
    if path == systemd_unit.CONFIG and not settings.get("state_dir"):
        settings = settings | {"state_dir": systemd_unit.STATE_DIR}  # where the service keeps its journal
    try:
        config = load(path, os.environ, **settings)
    except ConfigError as error:
        TERMINAL.say(f"{WRONG} {error}")
        return 1
    wrong = 0
    for verdict, text in findings(config, files):
        TERMINAL.say(f"{verdict} {text}")
        wrong += verdict == WRONG
    TERMINAL.say("\nall is well" if not wrong else f"\n{wrong} thing(s) to mend")
    return 1 if wrong else 0


def findings(config: Config, files: list[str]) -> Iterator[tuple[str, str]]:
    """Each check's verdict and sentence."""
    yield OK, f"settings: thing {config.thing!r}, broker {config.url.rsplit('@', 1)[-1]}"
    if config.url == misnamed_url(os.environ):
        yield NOTE, MISNAMED_URL
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
    if _of_service(directory) and not (directory / "journal").exists():
        yield NOTE, f"the service has no journal in {directory} yet: it has not been started"
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = CallJournal(directory / "journal", boot.boot_id())
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


def _of_service(directory: Path) -> bool:
    """Whether this is the service's directory: what is made in it here would be root's."""
    return directory == Path(systemd_unit.STATE_DIR)


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
    try:
        address = address_of(config)
    except ConfigError as error:
        yield WRONG, str(error)
        return
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        yield OK, f"{address.host} is {found[0][4][0]}"
        with socket.create_connection((address.host, address.port), CONNECT_TIMEOUT):
            pass
    except (OSError, UnicodeError) as error:
        yield WRONG, reasons.not_opened(error, address)
        return
    yield OK, f"{address.host}:{address.port} accepts connections"
    if running:
        if _of_service(Path(config.state)) and (status := service.status_text()):
            yield (WRONG if status.startswith("not connected") else OK), f"the service says: {status}"
        return
    problem = _connect(config, address)
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


def _connect(config: Config, address: BrokerAddress) -> str:
    """CONNECT as the agent would; returns what is wrong.

    The session may hold requests. One that arrived here would be acknowledged and lost, so
    the socket is closed on CONNACK, before anything else is read.
    """
    listener = _Listener()
    try:
        connection = MqttConnection(
            address, listener, Contexts(config.tls).current() if address.tls else None
        )
        connection.open()
    except ConfigError as error:
        return str(error)
    except Exception as error:  # a certificate or name may raise anything
        return reasons.not_opened(error, address)
    deadline = boot.since_boot() + CONNECT_TIMEOUT
    connection.begin(boot.since_boot())
    while not listener.connected and not listener.problem:
        connection.serve(boot.since_boot(), readable=False)
        remaining = max(0.0, deadline - boot.since_boot())
        readable = bool(select.select([connection.fileno()], [], [], remaining)[0])
        connection.serve(boot.since_boot(), readable=readable)
    connection.drop()
    return listener.problem
