"""What a run of workers.py found, for people, and what follows from it for more workers."""

from __future__ import annotations

from typing import Any, Final

Row = dict[str, Any]
COUNTS: Final = (1, 2, 4, 10, 20)
"""Workers to compute."""


def row_of(found: Row, name: str, window: int) -> Row | None:
    """One row of the part trips, if it was measured."""
    for row in found["trips"]:
        if (row["name"], row["window"]) == (name, window):
            return dict(row)
    return None


def model(found: Row) -> list[Row]:
    """What N workers carry, from what one costs and what hearing of another's execution costs.

    Each worker serves 1/N of the executions and hears of all. With ``serve`` the CPU time of
    serving one (hearing of it included) and ``hear`` that of hearing of another worker's, a
    worker of one core carries, of all executions of the cluster,

        1 second / (serve / N + hear * (N - 1) / N)

    and PostgreSQL spends its own time for each, and ``notify`` for each worker more.
    """
    rows: list[Row] = []
    for window in sorted({row["window"] for row in found["trips"]}):
        alone, heard = row_of(found, "workers-1", window), row_of(found, "workers-1-hearing", window)
        if alone is None or heard is None:
            continue
        # An idle process is not free either; that is not the executions' doing.
        idle = heard["idle_us"] / heard["per_second"]
        hear = max(0.0, heard["parts_us"]["hearing"] - idle)
        serve = alone["parts_us"]["worker 1"]
        database = alone["parts_us"]["PostgreSQL"]
        notify = max(0.0, heard["parts_us"]["PostgreSQL"] - database)
        for workers in COUNTS:
            each = serve / workers + hear * (workers - 1) / workers
            store = database + notify * (workers - 1)
            rows.append(
                {
                    "window": window,
                    "workers": workers,
                    "worker_us": round(each, 1),
                    "store_us": round(store, 1),
                    "mosquitto_us": alone["parts_us"]["mosquitto"],
                    "workers_carry": round(1e6 / each),
                    "store_cores": round(store / each, 2),
                }
            )
    return rows


def tables(found: Row) -> str:
    """Everything, as Markdown."""
    text = ""
    if found["trips"]:
        text += _trips(found)
    if found.get("disk"):
        disk = found["disk"]
        text += (
            f"\nPostgreSQL's disk: {disk['table_bytes']} bytes of table and {disk['index_bytes']} of indexes "
            f"for each of {disk['executions']:,} executions\n"
        )
    if found.get("model"):
        text += (
            "\n| in flight | workers | each worker's CPU us per execution of all | executions/s, a core each "
            "| PostgreSQL us | cores of PostgreSQL at that rate |\n" + "|---" * 6 + "|\n"
        )
        for row in found["model"]:
            text += (
                f"| {row['window']} | {row['workers']} | {row['worker_us']} | {row['workers_carry']:,} "
                f"| {row['store_us']} | {row['store_cores']} |\n"
            )
    if found["mirror"]:
        text += "\n| worker with | things | RSS MiB | bytes each | start s | start CPU s |\n"
        text += "|---" * 6 + "|\n"
        for row in found["mirror"]:
            text += (
                f"| {row['title']} | {row['things']:,} | {row['rss_bytes'] / 2**20:.0f} "
                f"| {row['bytes_per_thing']:,} | {row['start_seconds']} | {row['start_cpu_seconds']} |\n"
            )
    return text


def _trips(found: Row) -> str:
    text = "| server | in flight | executions/s | CPU us per execution | times the broker | POST p50/p99 ms "
    text += "| end p50/p99 ms | WAL bytes | idle us/s | lost |\n" + "|---" * 10 + "|\n"
    for row in found["trips"]:
        parts = ", ".join(f"{name} {used:,.0f}" for name, used in row["parts_us"].items())
        whole = sum(row["parts_us"].values())
        broker = row_of(found, "embedded", row["window"])
        times = f"{whole / sum(broker['parts_us'].values()):.1f}" if broker else ""
        latencies = (row["post_latency_ms"], row["ended_ms"])
        cells = [
            row["title"],
            str(row["window"]),
            f"{row['per_second']:,.0f}",
            f"{whole:,.0f}: {parts}",
            times,
            *(f"{found['p50']:.0f}/{found['p99']:.0f}" for found in latencies),
            f"{row['wal_bytes']:,}" if "wal_bytes" in row else "",
            f"{row['idle_us']:,.0f}",
            str(row["lost"]),
        ]
        text += f"| {' | '.join(cells)} |\n"
    return text
