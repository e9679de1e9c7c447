"""How the agent writes its log: one line per event to stderr, by structlog.

No log line raises: what cannot be shown is replaced, what cannot be written is dropped.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import structlog

from thingctl_protocol.log_stream import LogStream, keep_standard_descriptors

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITY: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "exception": "<3>"}


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "text", "json"] = "auto",
) -> None:
    """Set structlog up for the whole process."""
    keep_standard_descriptors()
    if form == "auto":
        form = "text" if _is_terminal() or "JOURNAL_STREAM" in os.environ else "json"
    line = _text if form == "text" else _json
    structlog.configure(
        processors=[structlog.processors.add_log_level, _with_traceback, line],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=LogStream(sys.stderr),
        cache_logger_on_first_use=True,
    )


def take_exceptions() -> None:
    """Log what Python itself would print to stderr, where a pipe without a reader blocks the printer.

    These are exceptions that end a handler's own thread, or are raised in ``__del__``.
    """
    log = structlog.get_logger()

    def in_thread(what: threading.ExceptHookArgs) -> None:
        if what.exc_type is not SystemExit:
            name = what.thread.name if what.thread else ""
            log.error("a thread failed", name=name, exc_info=what.exc_value)

    threading.excepthook = in_thread
    sys.unraisablehook = lambda what: log.error(
        "an exception was ignored", where=what.err_msg or "", exc_info=what.exc_value
    )


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # None or closed
        return False


def _with_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["traceback"] = formatted(error)
    return event


def formatted(error: BaseException) -> str:
    """The traceback of any exception, also of one whose text cannot be made."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as second:
        frames = "".join(traceback.format_tb(error.__traceback__))
        return f"{frames}{type(error).__name__} (its text cannot be shown: {type(second).__name__})"


def _text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """``12:30:14 info answered executionId=… status=SUCCEEDED``; in systemd's journal with its priority."""
    level, text = str(event.pop("level", "info")), as_text(event.pop("event", ""))
    trace = event.pop("traceback", "")
    fields = "".join(
        f" {as_text(key)}={_shown(value)}" for key, value in event.items() if not _is_empty(value)
    )
    if "JOURNAL_STREAM" in os.environ:
        head = f"{_PRIORITY.get(level, '')}{text}"
    else:
        head = f"{time.strftime('%H:%M:%S')} {level:7} {text}"
    return f"{head}{fields}" + (f"\n{trace.rstrip()}" if trace else "")


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
    try:
        return msgspec.json.encode({"timestamp": stamp, **event}, enc_hook=as_text).decode()
    except Exception:  # a surrogate, a key that is no text, a value that contains itself
        fields = {as_text(key): as_text(value) for key, value in event.items()}
        return msgspec.json.encode({"timestamp": stamp, **fields}).decode()


def as_text(value: Any) -> str:
    """Any value as text that UTF-8 can carry."""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except BaseException as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _shown(value: Any) -> str:
    text = as_text(value)
    return text if text and text.isprintable() and " " not in text else repr(text)


def _is_empty(value: Any) -> bool:
    return isinstance(value, str) and not value
