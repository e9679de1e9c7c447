"""How devices reach the broker, and what a device is given to become a thing.

A bundle goes to another machine: an address that leads nowhere from there is never in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.errors import NoDeviceUrl
from thingctl_broker.system.addresses import Address, ip_of, is_loopback
from thingctl_protocol.bundle import Bundle
from thingctl_protocol.mqtt_url import parse_mqtt_url
from thingctl_protocol.topics import DEFAULT_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REMEDY: Final = "set mqtt.public_url (thingctl serve --public-url mqtt://HOST:PORT)"


class Enrolment:
    """What the devices of one broker or cluster are given."""

    def __init__(
        self,
        find_url: Callable[[], str],
        *,
        ca: str = "",
        topic_root: str = DEFAULT_ROOT,
        is_open: bool = False,
        presence: bool = False,
    ) -> None:
        """``find_url``: the address of bundles, or :class:`NoDeviceUrl`. The rest as in a bundle."""
        self._find_url = find_url
        self.ca = ca
        self.topic_root = topic_root
        self.is_open = is_open
        """Whether devices need no credentials."""
        self._presence = presence

    @property
    def url(self) -> str:
        """The address that bundles carry; raises :class:`NoDeviceUrl`, which says what to set."""
        return self._find_url()

    @property
    def fault(self) -> str:
        """Why there are no bundles, and what to set; empty: there are."""
        try:
            self._find_url()
        except NoDeviceUrl as error:
            return error.text
        return ""

    def bundle(self, thing: str, password: str = "") -> Bundle:
        """What a device needs, to be this thing; raises :class:`NoDeviceUrl`."""
        return Bundle(
            thing,
            self.url,
            thing if password else "",
            password,
            ca=self.ca,
            topic_root=self.topic_root,
            presence=self._presence,
        )


def device_url(public_url: str, listens: Address, names: Sequence[str] | None) -> str:
    """The address at which devices reach a broker that listens there.

    ``public_url``: what the operator has set; it goes before everything else. ``names``: those of
    the server's certificate, host names before addresses; None: there is no TLS. Raises
    :class:`NoDeviceUrl` when no address is known that holds on another machine. A broker that
    listens on loopback only has devices on its own machine only.

    >>> device_url("", Address("0.0.0.0", 8883), ["localhost", "broker.example"])
    'mqtts://broker.example:8883'
    """
    if public_url:
        return public_url
    host = _plain_host(listens) if names is None else _named_host(listens, names)
    return f"{'mqtt' if names is None else 'mqtts'}://{Address(host, listens.port)}"


def worker_url(public_url: str, link_url: str) -> str:
    """The address at which devices reach a cluster that a worker reaches at ``link_url``.

    Raises :class:`NoDeviceUrl` for an address that holds on the worker's machine only.
    """
    if public_url:
        return public_url
    host = host_of(link_url)
    if not _is_for_others(host):
        raise NoDeviceUrl(
            f"devices elsewhere cannot reach the cluster at {host!r}, the address of the link: {REMEDY}"
        )
    return link_url


def host_of(url: str) -> str:
    """The host in a URL ``mqtt://host:port``; empty: there is none, or it is no such URL.

    >>> host_of("mqtts://[::1]:8883"), host_of("http://x")
    ('::1', '')
    """
    try:
        return parse_mqtt_url(url).host
    except ValueError:
        return ""


def is_unspecified(host: str) -> bool:
    """Whether it is ``0.0.0.0`` or ``::``, at which nothing can be reached."""
    address = ip_of(host)
    return address is not None and address.is_unspecified


def _plain_host(listens: Address) -> str:
    if is_loopback(listens.host) or _is_for_others(listens.host):
        return listens.host
    raise NoDeviceUrl(
        f"the broker listens on {listens.host}, which is no address of a device's broker: {REMEDY}"
    )


def _named_host(listens: Address, names: Sequence[str]) -> str:
    """A name that the certificate has: devices take no other."""
    if is_loopback(listens.host):
        fitting = [name for name in (listens.host, "localhost") if name in names]
    elif listens.host in names and not is_unspecified(listens.host):
        fitting = [name for name in names if _is_host_name(name)] or [listens.host]
    else:
        fitting = [name for name in names if _is_for_others(name)]
    if fitting:
        return fitting[0]
    raise NoDeviceUrl(
        f"the broker listens on {listens.host}, and its certificate names {', '.join(names) or 'nothing'}: "
        f"{REMEDY.replace('mqtt://', 'mqtts://')}, or use a certificate with the broker's name"
    )


def _is_for_others(host: str) -> bool:
    """Whether another machine may reach a host by that name or address."""
    address = ip_of(host)
    if address is None:
        return _is_host_name(host)
    return not (address.is_unspecified or address.is_loopback or address.is_link_local)


def _is_host_name(name: str) -> bool:
    local = name == "localhost" or name.endswith(".localhost")
    return bool(name) and ip_of(name) is None and not local and "*" not in name
