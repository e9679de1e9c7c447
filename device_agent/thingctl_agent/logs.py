"""How the agent writes its log: one line per event to stderr, by structlog."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import structlog

from thingctl_agent.terminal import LossyStream

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITY: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "exception": "<3>"}


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "text", "json"] = "auto",
) -> None:
    """Set structlog up for the whole process."""
    if form == "auto":
        form = "text" if sys.stderr.isatty() or "JOURNAL_STREAM" in os.environ else "json"
    structlog.configure(
        processors=[structlog.processors.add_log_level, _with_traceback, _text if form == "text" else _json],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(LossyStream(sys.stderr)),  # type: ignore[arg-type]  # no more is used
        cache_logger_on_first_use=True,
    )


def _with_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["traceback"] = "".join(traceback.format_exception(error))
    return event


def _text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """``12:30:14 info answered executionId=… status=SUCCEEDED``; in systemd's journal with its priority."""
    level, text = str(event.pop("level", "info")), str(event.pop("event", ""))
    trace = event.pop("traceback", "")
    fields = "".join(f" {key}={_shown(value)}" for key, value in event.items() if value != "")
    if "JOURNAL_STREAM" in os.environ:
        head = f"{_PRIORITY.get(level, '')}{text}"
    else:
        head = f"{time.strftime('%H:%M:%S')} {level:7} {text}"
    return f"{head}{fields}" + (f"\n{trace.rstrip()}" if trace else "")


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
    return msgspec.json.encode({"timestamp": stamp, **event}, enc_hook=str).decode()


def _shown(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)
