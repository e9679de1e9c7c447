from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import plot
import report

if TYPE_CHECKING:
    from pathlib import Path


def row(server: str, via: str, rate: float, **more: Any) -> dict[str, Any]:
    return {
        "server": server,
        "title": f"<{server}>",
        "journal": None,
        "via": via,
        "things": 1000,
        "window": 64,
        "per_second": rate,
        "least": rate * 0.9,
        "most": rate * 1.1,
        "runs": 3,
        "latency_ms": {"p50": 1.0, "p99": 2.0, "p99.9": 3.0},
        "cpu_us_per_execution": 1e6 / rate,
        "cpu_us_range": [0.9e6 / rate, 1.1e6 / rate],
        "server_busy": 1.0,
        "others_busy": 0.0,
        "lost": 0,
        **more,
    }


def found(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "environment": {"python": "3.11", "cores": 2},
        "repeats": 3,
        "seconds_per_run": 1.0,
        "trips": list(rows),
        "storm": [],
        "telemetry": [],
        "ordinary": [],
        "skipped": {"aedes": "node is not installed"},
    }


OURS = row("thingctl-in-process", "in process", 20_000)
HTTP = row("thingctl-http", "HTTP", 8_000)
PLAIN = row("amqtt", "in process", 400)


def test_the_headline_is_one_line_with_the_ratio_of_the_same_run() -> None:
    assert report.headline(found(OURS, HTTP, PLAIN)) == (
        "command round trips with 1,000 simulated things: 20,000/s in process and 8,000/s over HTTP; "
        "50 times a plain plugin on amqtt's own listeners (400/s) in the same run"
    )
    assert "times" not in report.headline(found(OURS, HTTP)).replace("round trips", "")
    assert report.headline(found(PLAIN)).startswith("No round trips")


def test_ratios_are_of_equal_sizes_only() -> None:
    other_size = row("mosquitto", "MQTT", 10_000, things=100)
    assert report.ratios(found(OURS, other_size)) == []
    (ratio,) = report.ratios(found(OURS, row("mosquitto", "MQTT", 10_000)))
    assert (ratio["peer"], ratio["times"], ratio["times_per_cpu"]) == ("mosquitto", 2.0, 2.0)


def test_what_other_work_took_of_the_core_is_said() -> None:
    table = report.tables(found({**OURS, "server_busy": 0.5, "others_busy": 0.423}))
    assert [cell.strip() for cell in table.splitlines()[2].split("|")][-4:-2] == ["50", "42"]


def test_what_was_skipped_is_said_with_its_reason() -> None:
    assert "skipped: aedes: node is not installed" in report.tables(found(OURS))


def test_the_storm_is_compared_with_mosquitto() -> None:
    storm = {
        "things": 100,
        "connect_least": 1,
        "connect_most": 3,
        "rss_kib_per_connection": 4.0,
        "drop_stall_ms": None,
        "connect_cpu_us": 30.0,
        "drop_cpu_us": 10.0,
    }
    table = report.tables(
        {
            **found(),
            "storm": [
                {"server": "thingctl", "title": "ours", "connect_seconds": 3.0, **storm},
                {"server": "mosquitto", "title": "theirs", "connect_seconds": 2.0, **storm},
            ],
        }
    )
    rows = [line for line in table.splitlines() if "1.50" in line]
    assert len(rows) == 1
    assert "ours" in rows[0]


def test_the_json_holds_everything_and_the_ratios(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    report.write(found(OURS, PLAIN), path)
    read = json.loads(path.read_text())
    assert read["trips"][0]["server"] == "thingctl-in-process"
    assert read["ratios"][0]["times"] == 50


def test_the_plot_is_well_formed_and_names_every_line() -> None:
    picture = plot.draw(found(OURS, PLAIN, HTTP, row("thingctl-in-process", "in process", 9, things=10)))
    texts = [element.text for element in ET.fromstring(picture).iter() if element.text]
    for title in ("<thingctl-in-process>", "<amqtt>", "<thingctl-http>", "1k", "10"):
        assert title in texts


def test_the_axis_has_its_marks_in_place() -> None:
    scale = plot.Scale(10, 1000, 100, 0)
    assert scale.marks() == [10, 20, 50, 100, 200, 500, 1000]
    assert plot.point(OURS, wall=False).rate == plot.point(OURS, wall=True).rate == 20_000
    assert [scale.at(value) for value in (10, 100, 1000)] == [100, 50, 0]
