"""Workers are measured, small; and what follows for more of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import postgres
import sizing
import worker_report
from support.needs import missing

BENCH = Path(__file__).parents[2] / "bench"
PAGE = BENCH.parent / "docs" / "cluster.md"


def test_what_more_workers_carry_follows_from_one() -> None:
    def row(name: str, **parts: float) -> dict[str, Any]:
        return {"name": name, "window": 64, "idle_us": 1000, "per_second": 1000, "parts_us": parts}

    found = {
        "trips": [
            row("workers-1", **{"worker 1": 400.0, "PostgreSQL": 100.0, "mosquitto": 50.0}),
            row("workers-1-hearing", **{"worker 1": 400.0, "PostgreSQL": 110.0, "hearing": 11.0}),
        ]
    }
    one, two, *_ = worker_report.model(found)
    assert (one["workers"], one["worker_us"], one["workers_carry"], one["store_us"]) == (1, 400, 2500, 100)
    assert (two["workers"], two["worker_us"], two["store_us"]) == (2, 205, 110)
    assert two["store_cores"] == pytest.approx(110 / 205, abs=0.01)
    assert worker_report.model({"trips": []}) == []


@pytest.mark.parametrize("peak", [1, 100, 5000, 30000])
def test_so_many_workers_carry_it_and_one_less_does_not(peak: int) -> None:
    n = sizing.workers_for(peak, 520, 15)

    def busy(workers: int) -> float:
        return peak * (520 + 15 * (workers - 1)) / workers / 1e6

    assert busy(n) <= sizing.LOAD
    assert n == 1 or busy(n - 1) > sizing.LOAD
    with pytest.raises(ValueError, match="fills a core"):
        sizing.workers_for(50_000, 520, 15)


def test_the_table_of_the_page_is_what_the_program_says() -> None:
    done = subprocess.run([sys.executable, BENCH / "sizing.py"], capture_output=True, text=True, check=True)
    (shown,) = re.findall(r"^\| things \| EMQX nodes .*?\n\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert shown.strip() == done.stdout.strip()


@pytest.mark.system
def test_a_small_run_loses_nothing_and_ends_what_it_started(tmp_path: Path, mosquitto_port: int) -> None:
    assert mosquitto_port  # installed
    if postgres.find() is None:
        missing("PostgreSQL is not installed (apt-get install postgresql)")
    path = tmp_path / "workers.json"
    argv = [sys.executable, str(BENCH / "workers.py"), "--workers", "1", "--windows", "8", "--things", "20"]
    argv += ["--cold", "30", "--mirrored", "100", "--seconds", "0.5", "--repeats", "1", "--json", str(path)]
    argv += ["--warmup", "0.5", "--idle", "0.5"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["trips"]] == [
        "embedded",
        "workers-1",
        "workers-1-hearing",
        "workers-1-cold",
    ]
    for row in found["trips"]:
        assert row["lost"] == 0
        assert row["sent"] > 0
        # A part that has little to do may have used less than the 10 ms that the kernel counts by.
        assert all(used >= 0 for used in row["parts_us"].values()), row
        assert next(iter(row["parts_us"].values())) > 0, row
    assert found["disk"]["index_bytes"] > 0
    assert [row["things"] for row in found["mirror"]] == [0, 100, 100, 20]
    assert "| 1 worker | 8 |" in done.stdout
    assert "run 1 of 1" in done.stderr
