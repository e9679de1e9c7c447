"""The commands themselves, as small as they go."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

BENCH = Path(__file__).parents[2] / "bench"


def run(script: str, *options: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / script), *options],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )


def test_a_small_run_loses_nothing_and_says_what_it_found(tmp_path: Path, mosquitto_port: int) -> None:
    assert mosquitto_port  # installed
    path = tmp_path / "run.json"
    servers = ["--servers", "thingctl,mosquitto,amqtt", "--peers-dir", str(tmp_path)]
    sizes = ["--things", "20", "--windows", "4", "--repeats", "1", "--seconds", "0.3"]
    done = run("run.py", "--parts", "trips,storm,telemetry", *servers, *sizes, "--json", str(path))
    found = json.loads(path.read_text())
    assert found["skipped"] == {}
    assert {row["server"] for row in found["trips"]} == {
        "thingctl-in-process",
        "thingctl-in-process-memory",
        "thingctl-http",
        "thingctl-http-memory",
        "mosquitto",
        "amqtt",
    }
    for row in found["trips"]:
        assert row["lost"] == 0, row
        assert row["ended"]["SUCCEEDED"] == row["sent"] > 0, row
        assert row["latency_ms"]["p50"] > 0, row
    assert all(row["connect_seconds"] > 0 for row in found["storm"])
    assert {row["server"] for row in found["telemetry"]} == {"thingctl-in-process", "mosquitto"}
    assert "| bare mosquitto" in done.stdout
    assert "round 1 of 1" in done.stderr


def is_running(pid: str) -> bool:
    """Whether a process runs; one that has ended may stay in the table until its parent reads that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def test_a_run_that_is_ended_ends_what_it_has_started(tmp_path: Path, mosquitto_port: int) -> None:
    assert mosquitto_port  # installed
    argv = [sys.executable, str(BENCH / "run.py"), "--servers", "mosquitto", "--things", "5"]
    options = ["--repeats", "100", "--json", str(tmp_path / "run.json")]
    with subprocess.Popen([*argv, *options], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert "round 1" in child.stderr.readline()
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        child.terminate()
        child.stderr.read()
        assert child.wait(30) == 143
    assert children
    assert not [pid for pid in children if is_running(pid)]


def test_the_path_alone_is_measured() -> None:
    found = json.loads(run("hot_path.py", "--batches", "1").stdout)
    assert found["commands"] == 4000
    assert found["cpu_us_per_command"] > 0


def test_ordinary_messages_alone_are_measured() -> None:
    found = json.loads(run("hot_messages.py", "--batches", "1").stdout)
    assert len(found) == 5
    assert all(figure > 0 for figure in found.values())


def test_a_post_alone_is_measured() -> None:
    found = json.loads(run("hot_http.py", "--batches", "1").stdout)
    assert found["cpu_us_per_post"] > 0
    assert found["writes_per_answer"] >= 1


def test_the_fleet_is_measured() -> None:
    found = json.loads(run("ceiling.py", "--things", "10", "--seconds", "0.2").stdout)
    assert found["fleet_ceiling_per_second"] > 0


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run("run.py", "--parts", "nonsense")
