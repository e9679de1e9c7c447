"""Makes connections in a thread of its own: to resolve a name and shake hands may block."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from thingctl_agent.runtime import reasons
from thingctl_agent.runtime.address import address_of
from thingctl_agent.runtime.mqtt import MqttConnection
from thingctl_agent.runtime.tls import Contexts
from thingctl_protocol.log_stream import keep_standard_descriptors

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from thingctl_agent.runtime.address import BrokerAddress
    from thingctl_agent.runtime.config import Config
    from thingctl_agent.runtime.mqtt import ConnectionEvents


class Dialer:
    """Dials one connection at a time.

    ``done(connection, "")`` or ``done(None, problem)`` follows each :meth:`dial`, called
    through ``post``, that is on the loop's thread.
    """

    def __init__(
        self,
        config: Config,
        events: ConnectionEvents,
        post: Callable[[Callable[[], None]], None],
        done: Callable[[MqttConnection | None, str], None],
    ) -> None:
        self._config = config
        self._events = events
        self._post = post
        self._done = done
        self._contexts = Contexts(config.tls)
        self.dialing = False
        self._opening: MqttConnection | None = None

    def drop(self) -> None:
        """In a forked child: close the connection that is being opened."""
        if self._opening is not None:
            self._opening.drop()

    def dial(self) -> None:
        """Begin; the settings are looked at anew, as a file may be there again."""
        self.dialing = True
        keep_standard_descriptors()
        try:
            address = address_of(self._config, will=True)
            connection = self._opening = MqttConnection(address, self._events, self._tls())
            threading.Thread(target=self._open, args=(connection, address), name="dial", daemon=True).start()
        except Exception as error:  # ConfigError; no thread, memory or descriptor
            self._end(None, str(error) or type(error).__name__)

    def _tls(self) -> ssl.SSLContext | None:
        return self._contexts.current() if self._config.broker.tls else None

    def _open(self, connection: MqttConnection, address: BrokerAddress) -> None:
        try:
            connection.open()
        except Exception as error:  # UnicodeError, ValueError: a name or certificate may raise anything
            problem = reasons.not_opened(error, address)
            self._post(lambda: self._end(None, problem))
        else:
            self._post(lambda: self._end(connection, ""))

    def _end(self, connection: MqttConnection | None, problem: str) -> None:
        self.dialing = False
        self._opening = None
        self._done(connection, problem)
