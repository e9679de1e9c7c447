from __future__ import annotations

import ssl

import pytest

from broker.http.running import ClusterApi, RunningApi, Tls
from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tls import ServerTls

ALSO_BY_HTTPS = {"test_errors", "test_routes_things", "test_routes_tokens"}
"""Where it says who may do what, TLS must make no difference."""


def pytest_generate_tests(metafunc):
    if "embedded" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition(".")[2]
        ways = ["http", "https"] if module in ALSO_BY_HTTPS else ["http"]
        metafunc.parametrize("embedded", ways, indirect=True)


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
def embedded(request):
    """Over the embedded service."""
    tls = request.getfixturevalue("tls") if request.param == "https" else None
    running = RunningApi(tls=tls)
    yield running
    running.close()


@pytest.fixture
def api(embedded):
    """The same, where it makes no difference what keeps the executions or has been looked at but once."""
    return embedded


@pytest.fixture(params=[RunningApi, ClusterApi], ids=["embedded", "cluster"])
def either(request):
    """Over whichever keeps the executions: what the test says is true of both."""
    running = request.param()
    yield running
    running.close()
