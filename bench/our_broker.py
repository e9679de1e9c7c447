"""The product's own broker process, with a load inside it.

``thingctl serve`` as it is, put together by the same code; only, commands come from
within (``service.send``) and ends are seen by a listener on ``service.events``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from typing import TYPE_CHECKING

from in_process import PARAMS, TTL, InProcessLoad, obey
from thingctl_broker.app.config import HttpSettings, MqttSettings, Settings
from thingctl_broker.app.run import run
from thingctl_broker.commands.events import Change
from thingctl_broker.system.logs import configure_logs

if TYPE_CHECKING:
    from thingctl_broker.app.broker import Application
    from thingctl_broker.commands.execution import Execution


class Runner:
    """The load on one application."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._service = application.service
        self._load = InProcessLoad(self._send)
        self._service.events.subscribe(self._on_end, (Change.ENDED,))

    async def serve(self) -> None:
        """Obey stdin, then end the process as an operator would."""
        address = self._application.mqtt_address
        await obey(self._load, mqtt=address.port)
        os.kill(os.getpid(), signal.SIGTERM)

    def _send(self, thing: str) -> str:
        return self._service.send(thing, "setTemperature", PARAMS, TTL).execution_id

    def _on_end(self, execution: Execution, _: Change) -> None:
        self._load.ended(execution.execution_id, str(execution.status))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--in-memory", action="store_true")
    options = parser.parse_args()
    configure_logs(debug=False)
    settings = Settings(
        open=True,
        data_dir=options.data_dir,
        in_memory=options.in_memory,
        mqtt=MqttSettings("127.0.0.1:0"),
        http=HttpSettings("127.0.0.1:0"),
    )
    tasks: list[asyncio.Task[None]] = []
    run(settings, lambda it: tasks.append(asyncio.get_running_loop().create_task(Runner(it).serve())))


if __name__ == "__main__":
    main()
