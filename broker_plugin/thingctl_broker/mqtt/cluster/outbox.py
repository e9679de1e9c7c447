"""Publishes with QoS 1 over one connection. No gmqtt, no socket.

As many are in flight as the cluster's Receive Maximum lets be [MQTT5-3.3.4-7]; the others wait in
order. What is not acknowledged when the connection is lost has failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from thingctl_broker.cluster.link_port import Handed, LinkDown
from thingctl_broker.mqtt.protocol.reason_codes import FAILURE, NO_MATCHING_SUBSCRIBERS, words

if TYPE_CHECKING:
    from typing import Protocol

    class Send(Protocol):
        """Publishes with QoS 1; returns the packet identifier."""

        def __call__(self, topic: str, payload: bytes, *, qos: int, expires_in: int) -> int:
            """``expires_in``: seconds, from 1."""
            ...


IN_FLIGHT_MAX: Final = 1000
"""Publishes in flight, whatever the cluster allows: they fill the memory until it has read them."""

WAITING_MAX: Final = 100_000
"""Publishes that wait for room; more are refused."""

TOLD_EVERY: Final = 60.0
"""Seconds between two lines in the log that say the same."""

_log = structlog.get_logger("thingctl.link")


class _Publish(NamedTuple):
    topic: str
    payload: bytes
    deadline: float
    handed: asyncio.Future[Handed] | None


class LinkOutbox:
    """What one connection is to publish. Times are the loop's."""

    def __init__(self, send: Send, window: int) -> None:
        self._send = send
        self._window = min(window, IN_FLIGHT_MAX)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Publish] = deque()
        self._in_flight: dict[int, _Publish] = {}
        self._closed = ""
        self._told_at = float("-inf")

    @property
    def is_empty(self) -> bool:
        """Whether everything is acknowledged."""
        return not self._waiting and not self._in_flight

    def put(self, topic: str, payload: bytes, expires_in: float) -> asyncio.Future[Handed]:
        """Publish; what becomes of it is in the future: :class:`LinkDown` when the connection is lost."""
        handed: asyncio.Future[Handed] = self._loop.create_future()
        self._put(_Publish(topic, payload, self._loop.time() + expires_in, handed))
        return handed

    def post(self, topic: str, payload: bytes, expires_in: float) -> None:
        """Publish without waiting. Raises :class:`LinkDown` when the connection is lost."""
        self._put(_Publish(topic, payload, self._loop.time() + expires_in, None))

    def acknowledged(self, packet_id: int, code: int) -> None:
        """PUBACK."""
        publish = self._in_flight.pop(packet_id, None)
        if publish is None:
            return
        self._fill()
        if code >= FAILURE:
            self._refused(publish, code)
        elif publish.handed is not None and not publish.handed.done():
            publish.handed.set_result(Handed.NOBODY if code == NO_MATCHING_SUBSCRIBERS else Handed.TAKEN)

    def close(self, reason: str) -> None:
        """The connection is gone."""
        self._closed = reason or "the connection was lost"
        lost = [*self._in_flight.values(), *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        for publish in lost:
            if publish.handed is not None and not publish.handed.done():
                publish.handed.set_exception(LinkDown(self._closed))

    def _put(self, publish: _Publish) -> None:
        if self._closed:
            raise LinkDown(self._closed)
        if len(self._waiting) >= WAITING_MAX:
            raise LinkDown(f"{WAITING_MAX} messages wait already to be published")
        self._waiting.append(publish)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._in_flight) < self._window:
            publish = self._waiting.popleft()
            handed = publish.handed
            if handed is not None and handed.done():
                continue  # who wanted it published has gone
            left = publish.deadline - self._loop.time()
            if left > 0:
                packet_id = self._send(publish.topic, publish.payload, qos=1, expires_in=ceil(left))
                self._in_flight[packet_id] = publish
            elif handed is not None:
                handed.set_result(Handed.NOBODY)  # it has expired here, and never left

    def _refused(self, publish: _Publish, code: int) -> None:
        text = f"the cluster refuses a publish to {publish.topic}: {words(code)}"
        now = self._loop.time()
        if now >= self._told_at + TOLD_EVERY:
            self._told_at = now
            _log.error(f"{text}. Its ACL and quotas must let the workers publish there")
        if publish.handed is not None and not publish.handed.done():
            publish.handed.set_exception(LinkDown(text))
