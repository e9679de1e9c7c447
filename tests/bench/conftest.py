from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def mosquitto_port() -> Iterator[int]:
    """A bare mosquitto. Not installed: skipped at home, a failure where CI is set."""
    if mosquitto.find() is None and "CI" not in os.environ:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    with mosquitto.running() as (_, port):
        yield port
