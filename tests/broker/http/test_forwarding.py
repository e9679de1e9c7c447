"""What proxies say of a request, and how far it is believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.http.running import AUTHORIZED, RunningApi
from thingctl_broker.commands.events import Change
from thingctl_broker.http.auth import FAILURES
from thingctl_broker.http.forwarding import HOPS_MAX, Forwarded, read_forwarded
from thingctl_broker.security.caller import origin
from thingctl_broker.system.addresses import NO_NETWORKS, Networks, Proxies

TRUSTED = Networks(["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"])
ELSEWHERE = Networks(["192.0.2.1"])
PEER = "127.0.0.1"


def read(*headers):
    return read_forwarded(
        [(name.encode(), value.encode("latin-1")) for name, value in headers], PEER, TRUSTED
    )


@pytest.mark.parametrize(
    ("told", "client"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1", "192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["2001:DB8:0::7"], "2001:db8::7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7,2001:db8:1::9"], "192.0.2.7"),
        (["10.0.0.5"], "10.0.0.5"),
        (["10.0.0.5, 10.0.0.6"], "10.0.0.5"),
        (["198.51.100.1, unknown"], PEER),
        (["198.51.100.1, unknown, 10.0.0.6"], "10.0.0.6"),
        (["198.51.100.1,"], PEER),
        ([""], PEER),
        ([], PEER),
        (["192.0.2.7\xff"], PEER),
        (["192.0.2.7" + ",10.0.0.6" * HOPS_MAX], "10.0.0.6"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_trusted_proxy(told, client):
    assert read(*(("x-forwarded-for", value) for value in told)) == Forwarded(client)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("proto", "https", Forwarded(PEER, "https")),
        ("proto", "HTTPS", Forwarded(PEER, "https")),
        ("proto", "http, https", Forwarded(PEER, "https")),
        ("proto", "ftp", Forwarded(PEER)),
        ("host", "fleet.example", Forwarded(PEER, host="fleet.example")),
        ("host", "evil.example, fleet.example:8443", Forwarded(PEER, host="fleet.example:8443")),
        ("host", "[2001:db8::1]:8443", Forwarded(PEER, host="[2001:db8::1]:8443")),
        ("host", "fleet.example/x", Forwarded(PEER)),
        ("host", "a@b", Forwarded(PEER)),
        ("prefix", "/thingctl/", Forwarded(PEER, prefix="/thingctl")),
        ("prefix", "/a/b", Forwarded(PEER, prefix="/a/b")),
        ("prefix", "/", Forwarded(PEER)),
        ("prefix", "//evil.example", Forwarded(PEER)),
        ("prefix", "a", Forwarded(PEER)),
        ("prefix", "/a?b", Forwarded(PEER)),
        ("prefix", "/" + "a" * 200, Forwarded(PEER)),
        ("port", "1", Forwarded(PEER)),
    ],
)
def test_where_the_client_has_found_the_api(name, value, told):
    assert read((f"x-forwarded-{name}", value)) == told


hosts = st.sampled_from(["10.0.0.1", "127.0.0.1", "192.0.2.7", "2001:db8::7", "unknown", ""]) | st.text(
    max_size=8
)


@given(st.lists(hosts, max_size=40), st.ip_addresses().filter(lambda address: str(address) not in TRUSTED))
def test_what_a_client_sends_has_no_say(invented, client):
    """The nearest proxy appends the address it sees; whatever stands before it came from the client."""
    told = ",".join([*(text.encode("ascii", "ignore").decode() for text in invented), str(client)])
    expected = client.ipv4_mapped or client if client.version == 6 else client
    if str(expected) in TRUSTED:
        return
    assert read(("x-forwarded-for", told)) == Forwarded(str(ipaddress.ip_address(expected)))


# With the server.

DEVICES = "/beta/me/devices?$top=1"
FORWARDED = {
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "fleet.example",
    "X-Forwarded-Prefix": "/thingctl",
}


@pytest.fixture
def serve():
    """Serves the API with the given proxies."""
    made = []

    def serve(trusted=NO_NETWORKS, **serving):
        made.append(RunningApi(proxies=Proxies(trusted), **serving))
        return made[-1]

    yield serve
    for api in made:
        api.close()


def next_link(api, **headers):
    link = api.get(DEVICES, headers=AUTHORIZED | headers).json["@odata.nextLink"]
    assert link.endswith("/beta/me/devices?$top=1&$skiptoken=lamp")
    return link.removesuffix("/beta/me/devices?$top=1&$skiptoken=lamp")


def test_whole_links_begin_as_the_settings_say_or_a_trusted_proxy_or_the_request(serve):
    told, stranger, behind = serve(public_url="https://a.example/b/"), serve(), serve(TRUSTED)
    assert next_link(told, **FORWARDED) == "https://a.example/b"
    assert next_link(stranger, **FORWARDED) == stranger.url
    assert next_link(behind, **FORWARDED) == "https://fleet.example/thingctl"
    assert next_link(behind) == behind.url
    assert next_link(behind, **{"X-Forwarded-Proto": "https"}) == behind.url.replace("http:", "https:")


@pytest.mark.parametrize(("trusted", "address"), [(TRUSTED, "192.0.2.7"), (ELSEWHERE, "127.0.0.1")])
def test_a_command_is_told_to_come_from_the_client(serve, trusted, address):
    api, seen = serve(trusted), []
    api.service.events.subscribe(lambda *_: seen.append(origin.get().address), (Change.CREATED,))
    for _ in range(3):  # the first of a caller goes another way than those behind it
        body = {"thingId": "lamp", "action": "turnOn"}
        assert api.post("/api/v1/commands", body, headers=AUTHORIZED | FORWARDED).status == 201
        api.send()
    assert seen == [address, "127.0.0.1"] * 3


def test_each_client_behind_a_trusted_proxy_has_its_own_limit_of_wrong_tokens(serve):
    api = serve(Networks(["127.0.0.1", "10.0.0.0/8"]))

    def asked(address):
        headers = {"Authorization": "Bearer no", "X-Forwarded-For": f"198.51.100.1, {address}, 10.0.0.1"}
        return api.get("/api/v1/me", headers=headers).status

    statuses = [asked("192.0.2.7") for _ in range(FAILURES.burst + 1)]
    assert statuses[: FAILURES.burst] == [401] * FAILURES.burst
    assert 429 in {statuses[-1], asked("192.0.2.7"), asked("192.0.2.7")}
    assert asked("192.0.2.8") == 401
