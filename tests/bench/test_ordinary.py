"""The part ``ordinary``, as small as it goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ordinary import BESIDE_IDLE, CONNECT, CONNECT_MORE, KEPT_SESSIONS, SHAPES, comparisons, idle_filters

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.system
def test_a_small_run_finds_every_figure_and_loses_nothing(tmp_path: Path, mosquitto_port: int) -> None:
    assert mosquitto_port  # installed
    path = tmp_path / "run.json"
    argv = [sys.executable, str(BENCH / "run.py"), "--parts", "ordinary", "--json", str(path)]
    argv += ["--servers", "thingctl-in-process,mosquitto,amqtt", "--repeats", "1", "--seconds", "0.2"]
    argv += ["--idle-filters", "300", "--ordinary-things", "20"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    rows = json.loads(path.read_text())["ordinary"]
    by_server: dict[str, set[str]] = {}
    for row in rows:
        assert row.get("lost", 0) == 0, row
        assert row["value"] > 0 or row["unit"] == "KiB", row
        by_server.setdefault(row["server"], set()).add(row["measure"])
    everywhere = {*(shape.name for shape in SHAPES), BESIDE_IDLE}
    assert all(everywhere <= by_server[name] for name in ("thingctl-in-process", "mosquitto", "amqtt"))
    assert by_server["mosquitto-kept"]
    assert "| 1 to 50, QoS 0" in done.stdout


def test_idle_filters_are_of_every_kind_and_match_no_load() -> None:
    found = idle_filters(6)
    assert len(set(found)) == 6
    assert all(name.startswith("idle/") for name in found)
    assert sum("+" in name for name in found) == 4
    assert sum("#" in name for name in found) == 2


def row(measure: str, server: str, value: float, **more: object) -> dict[str, object]:
    return {"measure": measure, "server": server, "title": server, "value": value, **more}


def test_a_figure_is_held_against_the_same_servers_alone() -> None:
    rows = [
        row(CONNECT, "a", 10),
        row(CONNECT, "b", 1),
        row(CONNECT_MORE, "a", 15),
        row(CONNECT_MORE, "c", 9),
    ]
    assert comparisons(rows) == [(f"{CONNECT_MORE} / {CONNECT}", "a", 1.5)]


def test_persistence_is_held_against_none_by_time_and_by_rate() -> None:
    rows = [
        row(KEPT_SESSIONS, "thingctl-off", 10, per_second=1000),
        row(KEPT_SESSIONS, "thingctl-sync", 20, per_second=400),
    ]
    assert [times for *_, times in comparisons(rows)] == [2, 0.4]
