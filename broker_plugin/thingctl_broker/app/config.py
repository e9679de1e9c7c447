"""The broker's settings, from a TOML file or an amqtt YAML, checked as a whole at the start."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from thingctl_broker.audit.log import FILE_MAX
from thingctl_broker.commands.delivery import QUEUE_MAX, WINDOW
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.cluster.settings import LinkSettings, check_link
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.origins import is_origin
from thingctl_broker.security.outbound_urls import check_uri, printable_target
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.security.topic_acl import AclSettings, check_rule
from thingctl_broker.storage.postgres.settings import StoreSettings, check_url
from thingctl_broker.system.addresses import Address, Networks, Proxies, is_loopback, parse_address
from thingctl_broker.things.enrolment import host_of, is_unspecified
from thingctl_broker.webhooks.queue import sign_standard
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import TTL_DEFAULT, TTL_MAX, TTL_MIN
from thingctl_protocol.topics import DEFAULT_ROOT, Topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


RATE_MIN: Final = 0.01
RATE_MAX: Final = 1_000_000
"""Bounds of a limit, in requests a second."""


class MqttSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where devices connect."""

    bind: str = "127.0.0.1:1883"
    topic_root: str = DEFAULT_ROOT
    tls_cert: str = ""
    """A certificate chain in PEM; with it, devices connect by TLS only."""
    tls_key: str = ""
    """Its key; empty: it is in ``tls_cert``."""
    tls_client_ca: str = ""
    """Whose certificates let devices in instead of a password; empty: nobody's."""
    tls_ca: str = ""
    """Whom devices are to trust; goes into their bundles. Empty: the system's authorities."""
    public_url: str = ""
    """Where devices reach the broker, such as ``mqtts://broker.example:8883``; goes into their
    bundles. Empty: a name of the certificate, or the address it listens on (``enrolment``)."""
    proxy_protocol_from: tuple[str, ...] = ()
    """Addresses and networks of proxies: their connections begin with a PROXY header, and the client's
    address is the one in it."""
    websocket_origins: tuple[str, ...] = ()
    """Origins of the web pages, beside the broker's own, that may connect over WebSocket, such as
    ``https://app.example``; ``*``: all."""
    persistence: Literal["sync", "interval", "off"] = "sync"
    """When sessions, their queued messages and retained messages are kept in the data directory: before
    their PUBACK, each second, or not at all."""
    keep_alive_max: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0
    """Seconds that an MQTT 5 client may have between two packets at most; 0: as many as it likes."""
    server_reference: str = ""
    """Where MQTT 5 clients go when the broker stops, such as ``broker2.example:8883``."""
    sys_interval: Annotated[int, msgspec.Meta(ge=0)] = 10
    """Seconds between two updates of the topics under ``$SYS/broker/``; 0: there are none."""

    @property
    def proxies(self) -> Networks:
        """The proxies that speak the PROXY protocol."""
        return Networks(self.proxy_protocol_from)


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where operators connect."""

    bind: str = "127.0.0.1:8080"
    tls_cert: str = ""
    """A certificate chain in PEM; with it, the API and the console are served by HTTPS only."""
    tls_key: str = ""
    """Its key; empty: it is in ``tls_cert``."""
    requests_per_second: float = 1000.0
    """How often each API token may call, in the long run; 0: as often as it likes."""
    burst: Annotated[int, msgspec.Meta(ge=1)] = 5000
    """And so many times at once after a quiet time."""
    public_url: str = ""
    """Where clients reach the API, such as ``https://fleet.example/thingctl``; whole URLs in answers
    begin with it. Empty: where a trusted proxy or the request says."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-`` headers count."""
    proxy_protocol_from: tuple[str, ...] = ()
    """Addresses and networks of proxies: their connections begin with a PROXY header."""

    @property
    def proxies(self) -> Proxies:
        """The proxies in front of the API."""
        return Proxies(Networks(self.trusted_proxies), Networks(self.proxy_protocol_from))

    @property
    def public_hosts(self) -> frozenset[str]:
        """``public_url``'s host as browsers write it: with its port, unless that is the scheme's own."""
        if not self.public_url:
            return frozenset()
        url = urlsplit(self.public_url)
        own = {"http": 80, "https": 443}[url.scheme]
        return frozenset({url.netloc.lower().removesuffix(f":{own}")})

    @property
    def rate(self) -> Rate | None:
        """Of the requests with each token; None: any."""
        return Rate(self.requests_per_second, self.burst) if self.requests_per_second else None


class CommandSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What commands may be. Times in seconds."""

    ttl_default: int = TTL_DEFAULT
    ttl_max: int = TTL_MAX
    cancel_grace: float = 10.0
    window: int = WINDOW
    """Requests published to one thing and not yet acknowledged."""
    queue: int = QUEUE_MAX
    """Requests waiting for one thing."""
    table: int = 200_000
    """Executions held at once."""
    keep: Annotated[float, msgspec.Meta(ge=0)] = 7 * 24 * 3600.0
    """How long an ended execution is kept."""
    journal_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How large the journal on the disk may grow; 0: as large as the disk allows."""


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written down of who did what."""

    enabled: bool = True
    """With open enrolment and ``in_memory``, too: ``audit.log`` is in the data directory."""
    file_bytes: Annotated[int, msgspec.Meta(ge=1024)] = FILE_MAX
    """A file of so many bytes is put aside, and another begun."""


class WebhookEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A system that is told of every execution. ``secret``: what its posts are signed with."""

    url: str
    secret: Annotated[str, msgspec.Meta(min_length=16)]


class WebhookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told how executions go."""

    endpoints: tuple[WebhookEndpoint, ...] = ()
    allow_private: bool = False
    """Whether posts may go to private and loopback addresses; also those that a caller names."""


class AmqttSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What amqtt, in whose process the broker runs, loads besides."""

    plugins: dict[str, dict[str, Any]] = {}
    """Plugins of amqtt's: the dotted name of a class, and its options."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them."""

    open: bool = False
    """Whether devices are let in without credentials; on loopback only."""
    insecure_bind: bool = False
    """Whether to listen beyond loopback without TLS, so that passwords, tokens and commands
    can be read and changed on the way."""
    data_dir: str | None = None
    in_memory: bool = False
    """Whether executions are forgotten when the broker ends, and with ``open`` things too.
    Tokens are kept all the same."""
    mqtt: MqttSettings = MqttSettings()
    http: HttpSettings = HttpSettings()
    commands: CommandSettings = CommandSettings()
    amqtt: AmqttSettings = AmqttSettings()
    """Of ``thingctl serve`` without a cluster; in amqtt's own YAML the plugins stand beside ours."""
    limits: MqttLimits = MqttLimits()
    webhooks: WebhookSettings = WebhookSettings()
    acl: AclSettings = AclSettings()
    link: LinkSettings | None = None
    """With it, this is a worker of an MQTT cluster, and no broker: ``store`` is its table then."""
    store: StoreSettings | None = None
    """The database of the workers."""
    audit: AuditSettings = AuditSettings()

    @property
    def service(self) -> ServiceSettings:
        """What the service needs of it."""
        return ServiceSettings(self.commands.ttl_default, self.commands.ttl_max, self.commands.cancel_grace)


def read_settings(path: Path, adjust: Callable[[Settings], Settings] = lambda settings: settings) -> Settings:
    """Read a TOML file; raises :class:`ConfigurationError`.

    ``adjust`` may change what the file says (options go before it) before the whole is checked.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    try:
        return check(adjust(msgspec.toml.decode(text, type=Settings)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def convert_settings(values: dict[str, Any]) -> Settings:
    """Take settings from plain values, with the file's names; raises :class:`ConfigurationError`."""
    try:
        return check(msgspec.convert(values, Settings))
    except msgspec.ValidationError as error:
        raise ConfigurationError(str(error)) from None


def check(settings: Settings) -> Settings:
    """Return ``settings`` if they make sense together; raises :class:`ConfigurationError`."""
    _check_addresses(settings)
    if settings.mqtt.tls_client_ca and not settings.mqtt.tls_cert:
        raise ConfigurationError("mqtt: tls_client_ca needs tls_cert")
    for rule in (*settings.acl.publish, *settings.acl.subscribe):
        fault = check_rule(rule)
        if fault is not None:
            raise ConfigurationError(f"acl: {fault}")
    _check_proxies(settings)
    _check_webhooks(settings.webhooks)
    _check_commands(settings)
    if settings.amqtt.plugins and settings.link is not None:
        raise ConfigurationError("amqtt: a worker of a cluster has no amqtt to load plugins into")
    return settings


def _check_addresses(settings: Settings) -> None:
    try:
        Topics(settings.mqtt.topic_root)
        mqtt = parse_address(settings.mqtt.bind)
        http = parse_address(settings.http.bind)
    except (ProtocolError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
    _check_public_url(settings.mqtt.public_url)
    if settings.link is not None or settings.store is not None:
        _check_cluster(settings.link, settings.store)
    elif settings.open and not is_loopback(mqtt.host):
        raise ConfigurationError(
            f"open enrolment lets anybody be any thing: it is for loopback only, not for {settings.mqtt.bind}"
        )
    if settings.link is None:
        _check_exposure("mqtt", mqtt, settings.mqtt.tls_cert, allowed=settings.insecure_bind)
    _check_exposure("http", http, settings.http.tls_cert, allowed=settings.insecure_bind)
    _check_rate(settings.http.requests_per_second)


def _check_proxies(settings: Settings) -> None:
    named = {
        "mqtt: proxy_protocol_from": settings.mqtt.proxy_protocol_from,
        "http: proxy_protocol_from": settings.http.proxy_protocol_from,
        "http: trusted_proxies": settings.http.trusted_proxies,
    }
    for what, texts in named.items():
        try:
            Networks(texts)
        except ValueError as error:
            raise ConfigurationError(f"{what}: {error}") from None
    for origin in settings.mqtt.websocket_origins:
        if not is_origin(origin):
            raise ConfigurationError(
                f"mqtt: websocket_origins: {origin!r} is no origin of a web page: give https://HOST, or *"
            )
    if settings.http.public_url and not _is_web_address(settings.http.public_url):
        raise ConfigurationError(
            f"http: public_url {settings.http.public_url!r} is no address of an API: "
            "give https://HOST, or https://HOST/PATH"
        )


def _is_web_address(text: str) -> bool:
    if not re.fullmatch(r"https?://[!-~]+", text, re.IGNORECASE):
        return False
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    return bool(url.hostname) and not (url.username or url.password or url.query or url.fragment)


def _check_public_url(url: str) -> None:
    host = host_of(url)
    if url and (not host or is_unspecified(host) or not url.isprintable()):
        raise ConfigurationError(
            f"mqtt: public_url {url!r} is no address of a broker: give mqtt://HOST:PORT or mqtts://HOST:PORT"
        )


def _check_commands(settings: Settings) -> None:
    commands = settings.commands
    if not TTL_MIN <= commands.ttl_default <= commands.ttl_max <= TTL_MAX:
        raise ConfigurationError(
            f"commands: ttl_default and ttl_max must be within {TTL_MIN} and {TTL_MAX} seconds"
        )
    if not 1 <= commands.cancel_grace <= TTL_MAX:
        raise ConfigurationError(f"commands: cancel_grace must be from 1 to {TTL_MAX} s")
    if min(commands.window, commands.queue, commands.table) < 1:
        raise ConfigurationError("commands: window, queue and table must be at least 1")
    if commands.window > settings.limits.in_flight:
        raise ConfigurationError("commands: window must not be above limits.in_flight")


def _check_exposure(what: str, address: Address, tls_cert: str, *, allowed: bool) -> None:
    if not is_loopback(address.host) and not tls_cert and not allowed:
        raise ConfigurationError(
            f"{what}: {address} can be reached from elsewhere, and without TLS whoever is on the way reads "
            f"passwords and tokens: set tls_cert (thingctl tls init makes one), or insecure_bind = true "
            "(--insecure-bind) to do it all the same"
        )


def _check_rate(requests_per_second: float) -> None:
    if requests_per_second and not RATE_MIN <= requests_per_second <= RATE_MAX:
        raise ConfigurationError(f"http: requests_per_second must be 0, or from {RATE_MIN} to {RATE_MAX}")


def _check_cluster(link: LinkSettings | None, store: StoreSettings | None) -> None:
    if link is None:
        raise ConfigurationError(
            "store: there is a database, but no link to a cluster: set link (--link) too"
        )
    if store is None:
        raise ConfigurationError(
            "link: the workers of a cluster need a database: set store.url (--store postgresql://…)"
        )
    try:
        check_link(link)
    except ValueError as error:
        raise ConfigurationError(f"link: {error}") from None
    try:
        check_url(store.url)
    except ValueError as error:
        raise ConfigurationError(f"store: {error}") from None


def _check_webhooks(settings: WebhookSettings) -> None:
    for endpoint in settings.endpoints:
        try:
            check_uri(endpoint.url)
            sign_standard(endpoint.secret.encode(), "", 0, b"")
        except ValueError as error:
            raise ConfigurationError(f"webhooks: {printable_target(endpoint.url)!r}: {error}") from None
