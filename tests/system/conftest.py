"""A broker of ours and mosquitto, for what both have to do alike."""

from __future__ import annotations

import pytest

from agent.harness import mosquitto
from support.peers import Peer
from support.processes import serving


@pytest.fixture
def none_stays_open():
    yield
    Peer.close_all()


@pytest.fixture(params=["ours", "mosquitto"])
def address(request, tmp_path):
    if request.param == "ours":
        with serving(tmp_path / "data") as serve:
            yield serve.mqtt_address
    else:
        with mosquitto(tmp_path, "allow_anonymous true\n") as theirs:
            yield ("127.0.0.1", theirs.port)
