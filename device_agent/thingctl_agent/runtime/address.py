"""Where a connection goes, and with what it signs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from thingctl_protocol.messages import Presence, encode_presence
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    from thingctl_agent.runtime.config import Config


class BrokerAddress(NamedTuple):
    """Where the broker is, and who comes.

    ``keepalive``: seconds. ``will``: topic and payload. ``tls``, ``ca``, ``cert``: whether the
    connection is encrypted, an authority is given for it, and a certificate is sent.
    ``is_mqtt_5``: MQTT 5 instead of 3.1.1.
    """

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    keepalive: int = 60
    will: tuple[str, bytes] | None = None
    tls: bool = False
    ca: bool = False
    cert: bool = False
    is_mqtt_5: bool = False


def address_of(config: Config, *, will: bool = False) -> BrokerAddress:
    """Return the address of an agent with these settings; raises :class:`ConfigError`.

    ``will``: whether the broker publishes the thing's absence for it, if ``presence`` is on.
    """
    broker = config.broker
    last_words = None
    if will and config.presence:
        topic = Topics(config.topic_root).presence(config.thing)
        last_words = topic, encode_presence(Presence(online=False))
    return BrokerAddress(
        broker.host,
        broker.port,
        config.thing,
        *config.login,
        config.keepalive,
        last_words,
        broker.tls,
        bool(config.tls.ca),
        bool(config.tls.cert),
        config.mqtt_version == 5,
    )
