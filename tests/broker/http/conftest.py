from __future__ import annotations

import pytest

from broker.http.running import ClusterApi, RunningApi


@pytest.fixture
def embedded():
    """Over the embedded service."""
    running = RunningApi()
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
