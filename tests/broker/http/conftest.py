from __future__ import annotations

import ssl

import pytest

from broker.http.running import RunningApi, Tls
from thingctl_broker.pki import Authority, utc_now
from thingctl_broker.tls import ServerTls

ALSO_BY_HTTPS = {"test_errors", "test_routes_things", "test_routes_tokens"}
"""Where it says who may do what, TLS must make no difference."""


def pytest_generate_tests(metafunc):
    if "api" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition(".")[2]
        ways = ["http", "https"] if module in ALSO_BY_HTTPS else ["http"]
        metafunc.parametrize("api", ways, indirect=True)


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    files = tmp_path_factory.mktemp("tls")
    authority = Authority.make(utc_now())
    cert, key = authority.server(["127.0.0.1"], utc_now())
    (files / "server.crt").write_bytes(cert)
    (files / "server.key").write_bytes(key)
    trust = ssl.create_default_context(cadata=authority.pair().cert.decode())
    return Tls(ServerTls(str(files / "server.crt"), str(files / "server.key")).context, trust)


@pytest.fixture
def api(request):
    tls = request.getfixturevalue("tls") if request.param == "https" else None
    running = RunningApi(tls=tls)
    yield running
    running.close()
