"""One line per event."""

from __future__ import annotations

import io
import json
import sys
import threading

import pytest
import structlog

from thingctl_agent.runtime import logs


@pytest.fixture
def log(monkeypatch):
    def make(form, level="info"):
        out = io.StringIO()
        monkeypatch.setattr("sys.stderr", out)
        logs.configure(level, form)
        return structlog.get_logger().bind(), out

    yield make
    structlog.reset_defaults()


def test_json_has_a_timestamp_and_any_value(log):
    logger, out = log("json")
    logger.info("answered", executionId="e1", odd=object())
    line = json.loads(out.getvalue())
    assert line["event"] == "answered"
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_text_is_for_people(log):
    logger, out = log("text")
    logger.warning("not connected", reason="no route", retryIn=1.5, empty="")
    assert out.getvalue().split(" ", 1)[1] == "warning not connected reason='no route' retryIn=1.5\n"


def test_a_traceback_follows(log):
    for form in ("text", "json"):
        logger, out = log(form)
        logger.error("failed", exc_info=ValueError("oh"))
        try:
            int("oh")
        except ValueError:
            logger.exception("failed")
        assert out.getvalue().count("ValueError: ") == 2


def test_in_systemds_journal_a_line_has_its_priority(log, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logger, out = log("auto")
    logger.warning("careful")
    assert out.getvalue() == "<4>careful\n"


def test_a_line_break_in_a_value_makes_no_second_line(log):
    logger, out = log("text")
    logger.info("x", value="a\nb")
    assert out.getvalue().count("\n") == 1


def test_below_the_level_nothing_is_written(log):
    logger, out = log("json", "error")
    logger.info("x")
    assert out.getvalue() == ""


class Unspeakable:
    def __str__(self):
        raise SystemExit(1)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("value", ["caf\udce9", Unspeakable(), {1: {2}}, {("a",): 1}, float("nan")])
def test_no_value_makes_a_line_raise(log, form, value):
    logger, out = log(form)
    logger.info("file", name=value)
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_that_cannot_be_formatted_is_logged(log, form):
    logger, out = log(form)
    broken = SyntaxError("x")
    broken.text = 5
    logger.error("handler failed", exc_info=broken)
    assert "SyntaxError" in out.getvalue()


def test_a_log_without_a_stream_is_silent(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    logs.configure()
    structlog.get_logger().bind().info("x")
    structlog.reset_defaults()


def test_what_python_would_print_is_logged(log, monkeypatch):
    _, out = log("json")
    for module, hook in ((sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    logs.take_exceptions()

    class Broken:
        def __del__(self):
            raise ValueError("in del")

    Broken()
    for function in (int, sys.exit):
        thread = threading.Thread(target=function, args=("x",), name="poll")
        thread.start()
        thread.join()
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["event"] == "an exception was ignored"
    assert "in del" in first["traceback"]
    assert (second["event"], second["name"]) == ("a thread failed", "poll")
