"""What a fleet needs, on paper: from the figures of workers.py, its size and how much it is asked to do.

    python bench/sizing.py --commands 10 --peak 10

The figures below are those in docs/cluster.md (``bench/workers.py`` on the machine named there, the
dearer of its rows); give others by options. EMQX's is an assumption from its vendor's reports.
"""

from __future__ import annotations

import argparse
from math import ceil
from typing import Any, Final

DAY: Final = 86_400
LOAD: Final = 0.7
"""How busy a core may be at the peak."""

THINGS: Final = (10_000, 100_000, 1_000_000, 10_000_000)


def workers_for(peak: float, serve: float, hear: float) -> int:
    """How many workers of one core carry ``peak`` executions/s.

    Each serves 1/N of them (``serve`` us each) and hears of the others (``hear`` us each), so
    N is the least with ``peak * (serve + hear * (N - 1)) / N <= LOAD`` seconds in a second.

    >>> workers_for(100, 520, 15), workers_for(11574, 520, 15)
    (1, 12)
    """
    room = LOAD * 1e6 / peak - hear
    if room <= 0:
        raise ValueError(f"{peak:,.0f} executions/s: hearing of them all fills a core of each worker")
    return max(1, ceil((serve - hear) / room))


def row(things: int, o: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    daily = things * o.commands
    peak = daily / DAY * o.peak
    return {
        "things": f"{things:,}",
        "EMQX nodes": max(1, ceil(things / o.emqx)),
        "executions/s, mean": f"{daily / DAY:,.1f}",
        "at the peak": f"{peak:,.0f}",
        "workers, one spare": max(2, workers_for(peak, o.serve, o.hear) + 1),
        "memory of each": f"{(o.base + things * o.mirror) / 1e9:,.1f} GB",
        "its start, CPU": f"{1 + things * o.start / 1e6:,.0f} s",
        "PostgreSQL cores": f"{peak * o.store / 1e6 / LOAD:,.1f}",
        "disk, 7 days": f"{daily * 7 * o.disk / 1e9:,.0f} GB",
        "disk at the most": f"{daily * 38 * o.disk / 1e9:,.0f} GB",
        "WAL a day": f"{daily * o.wal / 1e9:,.0f} GB",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, what in (
        ("commands", 10, "to each thing in a day"),
        ("peak", 10, "times the mean"),
        ("serve", 520, "CPU us of the worker for each execution"),
        ("hear", 15, "and of a worker that only hears of it"),
        ("store", 270, "CPU us of PostgreSQL for each execution"),
        ("disk", 790, "bytes of table and indexes for each execution, without params and result"),
        ("wal", 1860, "bytes of WAL for each execution"),
        ("mirror", 2900, "bytes in each worker for each thing"),
        ("base", 70_000_000, "bytes of a worker without things"),
        ("start", 43, "CPU us for each thing when a worker starts"),
        ("emqx", 500_000, "things on one EMQX node"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{what} ({default:,})")
    options = parser.parse_args()
    rows = [row(things, options) for things in THINGS]
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for each in rows:
        print("| " + " | ".join(map(str, each.values())) + " |")


if __name__ == "__main__":
    main()
