"""Paho clients for tests: connected when they are handed out, gone when the test is done."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt

DEADLINE = 15


class Listening(mqtt.Client):
    """A client that keeps what comes."""

    def __init__(self, client_id: str, **options: Any) -> None:
        super().__init__(mqtt.CallbackAPIVersion.VERSION2, client_id, **options)
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.sessions: queue.Queue[bool] = queue.Queue()
        self._granted: queue.Queue[list[int]] = queue.Queue()
        self._ended: queue.Queue[None] = queue.Queue()
        self.on_message = lambda _client, _data, message: self.messages.put(message)
        self.on_connect = lambda _client, _data, flags, _reason, _: self.sessions.put(flags.session_present)
        self.on_subscribe = lambda _client, _data, _id, codes, _: self._granted.put([c.value for c in codes])
        self.on_disconnect = lambda *_: self._ended.put(None)

    def begin(self, address: tuple[str, int]) -> bool:
        """Connect, once; return whether there was a session."""
        self.connect(*address, keepalive=30)
        self.loop_start()
        self.was_known = self.sessions.get(timeout=DEADLINE)
        return self.was_known

    def end(self) -> None:
        """Say goodbye, and wait until it is said."""
        self.disconnect()
        self._ended.get(timeout=DEADLINE)
        self.vanish()

    def vanish(self) -> None:
        """Be gone without a word."""
        self.loop_stop()
        self._reset_sockets()

    def listen(self, *filters: str, qos: int = 1) -> list[int]:
        self.subscribe([(topic_filter, qos) for topic_filter in filters])
        return self._granted.get(timeout=DEADLINE)

    def say(self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False) -> None:
        """Publish, and wait until it is acknowledged."""
        self.publish(topic, payload, qos, retain).wait_for_publish(DEADLINE)

    def heard(self) -> mqtt.MQTTMessage:
        return self.messages.get(timeout=DEADLINE)


@contextmanager
def paho(
    address: tuple[str, int],
    client_id: str = "",
    *,
    prepare: Callable[[Listening], object] | None = None,
    **options: Any,
) -> Iterator[Listening]:
    client = Listening(client_id, **options)
    if prepare is not None:
        prepare(client)
    client.begin(address)
    try:
        yield client
    finally:
        client.end()
