"""Logs: structlog for ours, and every library's through the same pipe."""

from __future__ import annotations

import logging
import sys

import structlog

from thingctl_protocol.log_stream import LogStream, keep_standard_descriptors


class WithoutLostClients(logging.Filter):
    """Drops the traceback that amqtt leaves for every message whose receiver has gone or is silent.

    It is the receiver's affair, and not news: amqtt has said so in a line. Its broadcasting
    logs it, and what it sends to a new subscriber nobody asks how it went, so that asyncio does.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep a record."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, TimeoutError) and type(error).__name__ != "ProtocolHandlerError":
            return True
        text = record.getMessage()
        return "mqtt_publish" not in text or not text.startswith(("Task failed", "Task exception was never"))


class LineHandler(logging.Handler):
    """Writes records to standard error; neither a record nor the stream can end or stop the caller."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = LogStream(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = self.format(record)
        except Exception as error:  # an argument or exception that cannot be shown
            line = f"a log line of {record.name} cannot be shown: {type(error).__name__}"
        self._lines.write(line)


def printable(
    _logger: object, _method: str, event_dict: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Escape what is not printable: a device's words on a terminal are text, and never its control."""
    for key, value in event_dict.items():
        if isinstance(value, str) and not value.isprintable():
            event_dict[key] = "".join(
                c if c.isprintable() else c.encode("unicode_escape").decode() for c in value
            )
    return event_dict


def configure_logs(*, debug: bool = False) -> None:
    """Send all logs to stderr: one line each, for people on a terminal, as JSON elsewhere."""
    keep_standard_descriptors()
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor
    if sys.stderr is not None and sys.stderr.isatty():
        last: list[structlog.types.Processor] = [printable]
        renderer = structlog.dev.ConsoleRenderer()
    else:
        shared.append(structlog.processors.format_exc_info)
        last = []  # JSON escapes
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = LineHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
        ),
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    # amqtt tells every connection at INFO; the front has said what is worth saying.
    for name in ("amqtt", "transitions", "websockets", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.WARNING)
    for name in ("amqtt.broker", "asyncio"):
        logging.getLogger(name).filters = [WithoutLostClients()]
