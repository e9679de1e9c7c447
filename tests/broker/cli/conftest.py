from __future__ import annotations

import pytest

from broker.cli.running import Cli, QuickCli
from broker.http.running import RunningApi


@pytest.fixture
def api():
    running = RunningApi()
    yield running
    running.close()


@pytest.fixture
def cli(api, tmp_path):
    return Cli(api.url, tmp_path)


@pytest.fixture
def quick(api, tmp_path, monkeypatch, capsys):
    return QuickCli(api.url, tmp_path, monkeypatch, capsys)
