"""Runs the broker as a process: the loop, amqtt with the plugin in it, and the signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from typing import TYPE_CHECKING, Any, Final

import msgspec
from amqtt.broker import Broker
from amqtt.errors import BrokerError, PluginError, PluginLoadError

from thingctl_broker.app.config import AmqttSettings
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.amqtt.plugins import check_plugins, explain, let_log
from thingctl_broker.system.sd_notify import served

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.app.broker import Application
    from thingctl_broker.app.config import Settings
    from thingctl_broker.app.worker import Worker

STOP_TIMEOUT: Final = 1.5
"""Seconds that everything together may take to end."""

WORKER_STOP_TIMEOUT: Final = 15.0
"""The same for a worker: what it has been told, it keeps before it ends."""

_PLUGIN: Final = "thingctl_broker.mqtt.plugin.CommandsPlugin"

_SESSION_EXPIRY: Final = 7 * 24 * 3600


def run(settings: Settings, ready: Callable[[Any], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` is called once when everything listens.

    With the :class:`~thingctl_broker.app.broker.Application`, or with the
    :class:`~thingctl_broker.app.worker.Worker` of a cluster. Raises :class:`ConfigurationError`.
    """
    os.umask(0o077)  # whatever is made from here on is for the owner's eyes only
    serve = _serve if settings.link is None else _work
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, ready))


async def _work(settings: Settings, ready: Callable[[Worker], None]) -> None:
    """Be a worker of a cluster."""
    try:
        from thingctl_broker.app.worker import Worker  # noqa: PLC0415 its libraries are an extra
    except ImportError as error:
        raise ConfigurationError(
            f"link: a worker of a cluster needs {error.name}: pip install 'thingctl[broker,cluster]'"
        ) from None
    stop = _stop_signal()
    worker = Worker(settings)
    starting = asyncio.get_running_loop().create_task(worker.start())
    stopping = asyncio.get_running_loop().create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    try:
        if not starting.done():
            starting.cancel()  # a cluster that is away may keep us waiting for ever
            await asyncio.gather(starting, return_exceptions=True)
            return
        await starting
        _settle_memory()
        ready(worker)
        async with served():
            await stopping
    finally:
        stopping.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORKER_STOP_TIMEOUT):
                await worker.stop()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # what a message allocates dies by reference count


async def _serve(settings: Settings, ready: Callable[[Application], None]) -> None:
    stop = _stop_signal()
    broker, plugin = build_broker(settings)
    await broker.start()
    if plugin.failure is not None:
        with contextlib.suppress(Exception):  # amqtt logs its own tasks that are cut off as faults
            async with asyncio.timeout(STOP_TIMEOUT):
                await broker.shutdown()
        raise ConfigurationError(str(plugin.failure)) from plugin.failure
    _settle_memory()
    ready(plugin.application)
    async with served():
        await stop.wait()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await broker.shutdown()
    except TimeoutError:
        pass  # what amqtt has not put away by now, the end of the process does


def build_broker(settings: Settings) -> tuple[Any, Any]:
    """Return an amqtt Broker with the plugin in it, and the plugin; raises :class:`ConfigurationError`."""
    others = settings.amqtt.plugins
    check_plugins(others, own=_PLUGIN)
    values = msgspec.to_builtins(msgspec.structs.replace(settings, amqtt=AmqttSettings()))
    try:
        broker = Broker(
            {
                "listeners": {"default": {"type": "external"}},
                # Ours last: when another one cannot be made, no port is open yet.
                "plugins": {**others, _PLUGIN: {"settings": values, "is_looked_after": True}},
                "session_expiry_interval": _SESSION_EXPIRY,
            }
        )
    except (PluginError, PluginLoadError) as error:
        raise explain(error) from None
    except BrokerError as error:
        raise ConfigurationError(str(error)) from None
    let_log(broker.plugins_manager.plugins)
    return broker, broker.plugins_manager.get_plugin("CommandsPlugin")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
