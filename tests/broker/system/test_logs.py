"""Logs: every library's through one pipe, a line each, and no more of them than anybody can read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable

import pytest
import structlog
from amqtt.errors import ProtocolHandlerError

from thingctl_broker.system import logs

ZERO = ZeroDivisionError("why")
NAMES = ("amqtt", "amqtt.broker", "transitions", "websockets", "uvicorn", "asyncio")


@pytest.fixture
def stderr(capsys):
    """Hands out what went to stderr; logging and structlog are as before afterwards."""
    root = logging.getLogger()
    named = [logging.getLogger(name) for name in NAMES]
    before = root.handlers[:], root.level, [(logger, logger.level, logger.filters[:]) for logger in named]
    yield lambda: capsys.readouterr().err
    root.handlers, root.level = before[0], before[1]
    for logger, level, filters in before[2]:
        logger.setLevel(level)
        logger.filters = filters
    structlog.reset_defaults()


def lines(stderr: Callable[[], str]) -> list[dict]:
    return [json.loads(line) for line in stderr().splitlines()]


def test_our_lines_and_a_librarys_look_alike(stderr):
    logs.configure_logs()
    structlog.get_logger("thingctl.test").info("ours", thing="lamp")
    logging.getLogger("somebody").warning("theirs: %s", 5)
    ours, theirs = lines(stderr)
    assert (ours["event"], ours["thing"], ours["level"]) == ("ours", "lamp", "info")
    assert (theirs["event"], theirs["level"]) == ("theirs: 5", "warning")
    assert ours.keys() - {"thing"} == theirs.keys()
    assert ours["timestamp"].endswith("Z")


@pytest.mark.parametrize(("debug", "told"), [(False, ["b", "d"]), (True, ["a", "b", "c", "d"])])
def test_debug_tells_everything(stderr, debug, told):
    logs.configure_logs(debug=debug)
    structlog.get_logger("thingctl.test").debug("a")
    structlog.get_logger("thingctl.test").info("b")
    logging.getLogger("amqtt.broker").info("c")
    logging.getLogger("amqtt.broker").warning("d")
    assert [line["event"] for line in lines(stderr)] == told


def test_an_exception_is_one_line(stderr):
    logs.configure_logs()
    try:
        raise ZERO
    except ZeroDivisionError:
        structlog.get_logger("thingctl.test").exception("failed")
    (line,) = lines(stderr)
    assert "ZeroDivisionError: why" in line["exception"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(TimeoutError(), False), (ProtocolHandlerError("cancelled"), False), (ZeroDivisionError(), True)],
)
@pytest.mark.parametrize(
    ("logger", "text"),
    [
        ("amqtt.broker", "Task failed and will be skipped: <Task coro=<mqtt_publish()>>"),
        ("asyncio", "Task exception was never retrieved\nfuture: <Task coro=<mqtt_publish()>>"),
    ],
)
def test_a_receiver_that_is_gone_is_not_told_of_for_each_message(stderr, logger, text, error, told):
    logs.configure_logs()
    logging.getLogger(logger).error(text, exc_info=error)
    logging.getLogger(logger).error("Something else of mqtt_publish", exc_info=error)
    logging.getLogger(logger).error("Task failed: something else", exc_info=error)
    assert [line["event"] for line in lines(stderr)] == [
        *([text] if told else []),
        "Something else of mqtt_publish",
        "Task failed: something else",
    ]


def test_people_on_a_terminal_read_no_json(stderr, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    logs.configure_logs()
    structlog.get_logger("thingctl.test").info("ours", thing="lamp")
    said = stderr()
    assert "lamp" in said
    with pytest.raises(json.JSONDecodeError):
        json.loads(said)


def test_on_a_terminal_a_devices_words_are_text():
    """In JSON they are anyway."""
    hostile = "lamp\x1b[2J\x9b31m\r\nforged line\u2028\u202e"
    made = logs.printable(None, "info", {"event": hostile, "thing": hostile, "count": 3})
    assert made["event"] == made["thing"]
    assert made["event"].isprintable()
    assert made["event"].startswith("lamp\\x1b[2J")
    assert made["count"] == 3
