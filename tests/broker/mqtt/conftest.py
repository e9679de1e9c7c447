"""What the tests of the front share."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
import structlog

from thingctl_broker.system.logs import WithoutLostClients


@pytest.fixture
async def nothing_goes_wrong(caplog):
    """Fail a test in which anything went wrong that nobody was told of, or that was logged as an error."""
    faults: list[object] = []

    def fault(_: asyncio.AbstractEventLoop, context: dict) -> None:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "%s: %r", None, None)
        record.args = context["message"], context.get("future") or context.get("task")
        error = context.get("exception")
        record.exc_info = (type(error), error, None)
        if WithoutLostClients().filter(record):
            faults.append(context)

    asyncio.get_running_loop().set_exception_handler(fault)
    with structlog.testing.capture_logs() as logs:
        yield
        for _ in range(3):
            await asyncio.sleep(0)
    gc.collect()  # an exception that nobody retrieved is told of when its task goes
    faults += [entry for entry in logs if entry["log_level"] in {"error", "critical"}]
    faults += [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR
        and record.name.startswith(("amqtt", "asyncio"))
        and WithoutLostClients().filter(record)
    ]
    assert faults == []
