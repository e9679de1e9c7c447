"""The address that a device is given."""

from __future__ import annotations

import pytest

from thingctl_broker.errors import NoDeviceUrl
from thingctl_broker.system.addresses import Address
from thingctl_broker.things.enrolment import Enrolment, device_url, worker_url

NAMES = ("localhost", "*.lan", "broker.example", "other.example", "192.0.2.7")

TABLE = [
    # public_url, bind, names of the certificate, the address
    ("mqtts://hub:1", "0.0.0.0", None, "mqtts://hub:1"),
    ("mqtt://hub:1", "127.0.0.1", ("localhost",), "mqtt://hub:1"),
    ("", "127.0.0.1", None, "mqtt://127.0.0.1:9"),
    ("", "::1", None, "mqtt://[::1]:9"),
    ("", "192.0.2.7", None, "mqtt://192.0.2.7:9"),
    ("", "2001:db8::7", None, "mqtt://[2001:db8::7]:9"),
    ("", "0.0.0.0", None, None),
    ("", "::", None, None),
    ("", "fe80::1", None, None),
    ("", "0.0.0.0", NAMES, "mqtts://broker.example:9"),
    ("", "::", NAMES, "mqtts://broker.example:9"),
    ("", "192.0.2.7", NAMES, "mqtts://broker.example:9"),
    ("", "192.0.2.8", NAMES, "mqtts://broker.example:9"),
    ("", "0.0.0.0", ("localhost", "127.0.0.1", "192.0.2.7"), "mqtts://192.0.2.7:9"),
    ("", "0.0.0.0", ("::1", "2001:db8::7"), "mqtts://[2001:db8::7]:9"),
    ("", "192.0.2.7", ("192.0.2.6", "192.0.2.7"), "mqtts://192.0.2.7:9"),
    ("", "0.0.0.0", ("localhost",), None),
    ("", "0.0.0.0", ("localhost", "127.0.0.1", "::1", "0.0.0.0", "*.example"), None),
    ("", "0.0.0.0", (), None),
    ("", "192.0.2.7", ("localhost",), None),
    ("", "127.0.0.1", ("localhost",), "mqtts://localhost:9"),
    ("", "127.0.0.1", ("localhost", "127.0.0.1"), "mqtts://127.0.0.1:9"),
    ("", "127.0.0.1", ("broker.example",), None),
]


@pytest.mark.parametrize(("public", "bind", "names", "url"), TABLE)
def test_an_address_holds_where_the_bundle_goes_or_there_is_none(public, bind, names, url):
    if url is not None:
        assert device_url(public, Address(bind, 9), names) == url
        return
    with pytest.raises(NoDeviceUrl, match=r"set mqtt\.public_url"):
        device_url(public, Address(bind, 9), names)


def test_a_worker_gives_the_address_of_its_cluster():
    assert worker_url("", "mqtts://emqx.example:8883") == "mqtts://emqx.example:8883"
    assert worker_url("mqtt://hub:1", "mqtt://127.0.0.1:1883") == "mqtt://hub:1"
    for link in ("mqtt://127.0.0.1:1883", "mqtt://localhost:1883", "mqtts://[::1]:1", "mqtt://0.0.0.0:1"):
        with pytest.raises(NoDeviceUrl, match=r"set mqtt\.public_url"):
            worker_url("", link)


def test_what_is_given_says_what_is_missing():
    def nothing():
        raise NoDeviceUrl("set it")

    assert Enrolment(nothing).fault == "set it"
    found = Enrolment(lambda: "mqtt://h:1", ca="PEM", topic_root="a/b", presence=True)
    assert found.fault == ""
    bundle = found.bundle("lamp", "secret")
    assert (bundle.username, bundle.password, bundle.ca, bundle.topic_root) == (
        "lamp",
        "secret",
        "PEM",
        "a/b",
    )
    assert (found.bundle("lamp").username, bundle.presence) == ("", True)
