"""What a run found, for people (a headline, tables) and for programs (JSON)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from figures import ratio
from ordinary import comparisons

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Row = dict[str, Any]
Size = tuple[int, int]
"""Things, and commands in flight."""


def write(found: Row, path: Path) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, "ratios": ratios(found)}, indent=1) + "\n")


def figure(found: Row, server: str, via: str, size: Size, name: str = "per_second") -> float | None:
    """One figure of one row, if it was measured."""
    for row in found["trips"]:
        if (row["server"], row["via"], row["things"], row["window"]) == (server, via, *size):
            return None if row[name] is None else float(row[name])
    return None


def headline(found: Row) -> str:
    """One line: how fast, and how many times as fast as a plugin on amqtt's own listeners."""
    size = (1000, 64)
    ours = figure(found, "thingctl-in-process", "in process", size)
    http = figure(found, "thingctl-http", "HTTP", size)
    plain = figure(found, "amqtt", "in process", size)
    if ours is None and http is None:
        return "No round trips with 1,000 things and a window of 64 were measured."
    said = []
    if ours is not None:
        said.append(f"{ours:,.0f}/s in process")
    if http is not None:
        said.append(f"{http:,.0f}/s over HTTP")
    line = f"command round trips with 1,000 simulated things: {' and '.join(said)}"
    times = ratio(ours, plain)
    if times is not None and plain is not None:
        line += (
            f"; {times:.0f} times a plain plugin on amqtt's own listeners ({plain:,.0f}/s) in the same run"
        )
    return line


def ratios(found: Row) -> list[Row]:
    """Ours to each peer's, at the same size and window."""
    made: list[Row] = []
    pairs = (
        ("thingctl-in-process", "in process", "mosquitto", "MQTT"),
        ("thingctl-in-process-memory", "in process", "mosquitto", "MQTT"),
        ("thingctl-in-process", "in process", "amqtt", "in process"),
        ("thingctl-in-process", "in process", "aedes", "in process"),
        ("thingctl-http", "HTTP", "fastapi", "HTTP"),
        ("thingctl-http", "HTTP", "aedes", "HTTP"),
        ("thingctl-http-memory", "HTTP", "aedes", "HTTP"),
    )
    sizes: list[Size] = sorted({(row["things"], row["window"]) for row in found["trips"]})
    for ours, our_via, theirs, their_via in pairs:
        for size in sizes:
            times = ratio(figure(found, ours, our_via, size), figure(found, theirs, their_via, size))
            if times is None:
                continue
            cpu = "cpu_us_per_execution"
            cheaper = ratio(
                figure(found, theirs, their_via, size, cpu), figure(found, ours, our_via, size, cpu)
            )
            made.append(
                {
                    "ours": ours,
                    "via": our_via,
                    "peer": theirs,
                    "things": size[0],
                    "window": size[1],
                    "times": round(times, 2),
                    "times_per_cpu": None if cheaper is None else round(cheaper, 2),
                }
            )
    return made


def tables(found: Row) -> str:
    """Everything, as Markdown."""
    parts = []
    if found["trips"]:
        parts.append(_trips(found["trips"]))
    if found["storm"]:
        parts.append(_storm(found["storm"]))
    if found["telemetry"]:
        parts.append(_telemetry(found["telemetry"]))
    if found["ordinary"]:
        parts.append(_ordinary(found["ordinary"]))
    compared = ratios(found)
    if compared:
        parts.append(_ratios(compared))
    parts.extend(f"skipped: {name}: {reason}" for name, reason in found["skipped"].items())
    return "\n\n".join(parts)


def _ratios(rows: list[Row]) -> str:
    heads = ("ours", "peer", "things", "window", "ours / peer", "by CPU time")
    body = (
        (
            f"{row['ours']} ({row['via']})",
            row["peer"],
            f"{row['things']:,}",
            row["window"],
            f"{row['times']:.2f}",
            "" if row["times_per_cpu"] is None else f"{row['times_per_cpu']:.2f}",
        )
        for row in rows
    )
    note = (
        "ours / peer: executions per second. by CPU time: executions per second of the server's CPU time, "
        "which other work on the machine disturbs less."
    )
    return f"{_table(heads, body)}\n\n{note}"


def _trips(rows: list[Row]) -> str:
    heads: tuple[str, ...] = ("server", "load", "journal", "things", "window", "per s", "range")
    heads += ("p50 ms", "p99 ms", "p99.9 ms", "CPU us", "core %", "others %", "lost")
    body = []
    for row in rows:
        latency = row["latency_ms"]
        body.append(
            (
                row["title"],
                row["via"],
                {True: "on", False: "off", None: ""}[row["journal"]],
                f"{row['things']:,}",
                row["window"],
                f"{row['per_second']:,}",
                f"{row['least']:,} to {row['most']:,}",
                *(latency.get(name, "") for name in ("p50", "p99", "p99.9")),
                row["cpu_us_per_execution"] or "",
                *(f"{100 * (row[name] or 0):.0f}" for name in ("server_busy", "others_busy")),
                row["lost"],
            )
        )
    note = (
        f"per s: median of {rows[0]['runs']} runs. CPU us: the server's CPU time per execution. "
        "core %: how much of its core the server used; others %: how much of it other work on this machine "
        "took. Far below 100 together, the server waited for its disk or for the load."
    )
    return f"{_table(heads, body)}\n\n{note}"


def _storm(rows: list[Row]) -> str:
    mosquitto = {row["things"]: row["connect_seconds"] for row in rows if row["server"] == "mosquitto"}
    heads: tuple[str, ...] = ("server", "things", "connect s", "range", "x mosquitto", "CPU us each")
    heads += ("RSS KiB each", "stall at drop ms", "CPU us each")
    body = []
    for row in rows:
        times = ratio(row["connect_seconds"], mosquitto.get(row["things"]))
        body.append(
            (
                row["title"],
                f"{row['things']:,}",
                row["connect_seconds"],
                f"{row['connect_least']} to {row['connect_most']}",
                "" if times is None else f"{times:.2f}",
                row["connect_cpu_us"],
                row["rss_kib_per_connection"],
                "" if row["drop_stall_ms"] is None else row["drop_stall_ms"],
                row["drop_cpu_us"],
            )
        )
    return _table(heads, body)


def _telemetry(rows: list[Row]) -> str:
    heads = ("server", "things", "p99 ms quiet", "p99 ms beside 1,000 messages/s", "times")
    body = []
    for row in rows:
        quiet, busy = (row[name]["latency_ms"].get("p99") for name in ("quiet", "busy"))
        times = ratio(busy, quiet)
        body.append(
            (row["title"], f"{row['things']:,}", quiet, busy, "" if times is None else f"{times:.2f}")
        )
    return _table(heads, body)


def _ordinary(rows: list[Row]) -> str:
    heads: tuple[str, ...] = ("ordinary messages", "server", "unit", "median", "range", "x mosquitto")
    heads += ("per s", "core %", "load %", "lost")
    theirs = {row["measure"]: row["value"] for row in rows if row["server"].startswith("mosquitto")}
    body = []
    for row in rows:
        times = ratio(row["value"], theirs.get(row["measure"]))
        body.append(
            (
                row["measure"],
                row["title"],
                row["unit"],
                f"{row['value']:,.2f}",
                f"{row['least']:,.2f} to {row['most']:,.2f}",
                "" if times is None else f"{times:.2f}",
                f"{row['per_second']:,}" if "per_second" in row else "",
                *(f"{100 * row[name]:.0f}" if name in row else "" for name in ("server_busy", "load_busy")),
                row.get("lost", ""),
            )
        )
    note = (
        "CPU us: the broker's CPU time per delivered message; for kept sessions per acknowledged one, for "
        "connections per thing. core %: how much of its core the broker used; load %: how much of another "
        "the load used."
    )
    compared = [(what, title, f"{times:.2f}") for what, title, times in comparisons(rows)]
    return f"{_table(heads, body)}\n\n{note}\n\n{_table(('compared', 'server', 'times'), compared)}"


def _table(heads: tuple[str, ...], body: Iterable[tuple[object, ...]]) -> str:
    rows = [heads, *(tuple(str(cell) for cell in row) for row in body)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
