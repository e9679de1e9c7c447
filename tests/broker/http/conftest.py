from __future__ import annotations

import pytest

from broker.http.running import RunningApi


@pytest.fixture
def api():
    running = RunningApi()
    yield running
    running.close()
