"""Makes connections in a thread of its own: to resolve a name and shake hands may block."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from thingctl_agent.mqtt import Address, Connection
from thingctl_agent.tls import Contexts
from thingctl_protocol.log_stream import keep_standard_descriptors
from thingctl_protocol.messages import Presence, encode_presence
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from thingctl_agent.config import Config
    from thingctl_agent.mqtt import Events


class Dialer:
    """Dials one connection at a time.

    ``done(connection, "")`` or ``done(None, problem)`` follows each :meth:`dial`, called
    through ``post``, that is on the loop's thread.
    """

    def __init__(
        self,
        config: Config,
        events: Events,
        post: Callable[[Callable[[], None]], None],
        done: Callable[[Connection | None, str], None],
    ) -> None:
        self._config = config
        self._events = events
        self._post = post
        self._done = done
        self._contexts = Contexts(config.tls)
        self.dialing = False
        self._opening: Connection | None = None

    def drop(self) -> None:
        """In a forked child: close the connection that is being opened."""
        if self._opening is not None:
            self._opening.drop()

    def dial(self) -> None:
        """Begin; the settings are looked at anew, as a file may be there again."""
        self.dialing = True
        keep_standard_descriptors()
        try:
            connection = self._opening = Connection(self._address(), self._events, self._tls())
            threading.Thread(target=self._open, args=(connection,), name="dial", daemon=True).start()
        except Exception as error:  # ConfigError; no thread, memory or descriptor
            self._end(None, str(error) or type(error).__name__)

    def _address(self) -> Address:
        broker, config = self._config.broker, self._config
        return Address(
            broker.host,
            broker.port,
            config.thing,
            config.username or broker.username,
            config.secret or broker.password,
            config.keepalive,
            self._will() if config.presence else None,
        )

    def _will(self) -> tuple[str, bytes]:
        """What the broker is to say when this thing is gone without a word."""
        topic = Topics(self._config.topic_root).presence(self._config.thing)
        return topic, encode_presence(Presence(online=False))

    def _tls(self) -> ssl.SSLContext | None:
        return self._contexts.current() if self._config.broker.tls else None

    def _open(self, connection: Connection) -> None:
        try:
            connection.open()
        except Exception as error:  # UnicodeError, ValueError: a name or certificate may raise anything
            problem = str(error) or type(error).__name__
            self._post(lambda: self._end(None, problem))
        else:
            self._post(lambda: self._end(connection, ""))

    def _end(self, connection: Connection | None, problem: str) -> None:
        self.dialing = False
        self._opening = None
        self._done(connection, problem)
