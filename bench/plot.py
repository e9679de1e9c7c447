"""Draws a run's round trips as SVG: executions a second over the size of the fleet.

python bench/plot.py bench/results/TIME.json docs/benchmarks.svg
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

WIDTH: Final = 960
HEIGHT: Final = 420
WINDOW: Final = 64
TOP: Final = 84
BOTTOM: Final = 56
LABEL_GAP: Final = 15
"""Pixels that two labels beside the lines keep between them."""

STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #666 }
.grid { stroke: #ddd }
.paper { fill: #fff }
.line { fill: none; stroke-width: 2 }
.ours { stroke-width: 3.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .note { fill: #aaa } .grid { stroke: #444 } .paper { fill: #16181c }
}
"""

COLOURS: Final = {
    "thingctl-in-process": "#1673d1",
    "thingctl-in-process-memory": "#6fb1ef",
    "thingctl-http": "#1673d1",
    "thingctl-http-memory": "#6fb1ef",
    "mosquitto": "#7a8288",
    "fastapi": "#3a9a4c",
    "aedes": "#d8702a",
    "amqtt": "#a455c0",
}


class Point(NamedTuple):
    """A measured figure: the median with its range."""

    things: int
    rate: float
    least: float
    most: float


class Line(NamedTuple):
    """One server under one load."""

    server: str
    title: str
    points: list[Point]


class Scale(NamedTuple):
    """A logarithmic axis: from ``least`` at pixel ``start`` to ``most`` at pixel ``end``."""

    least: float
    most: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        return self.start + share * (self.end - self.start)

    def marks(self) -> list[float]:
        """1, 2 and 5 of each power of ten on the axis."""
        low, high = math.floor(math.log10(self.least)), math.ceil(math.log10(self.most))
        marks = [step * 10.0**power for power in range(low, high + 1) for step in (1, 2, 5)]
        return [mark for mark in marks if self.least <= mark <= self.most]


def point(row: dict[str, Any], *, wall: bool) -> Point:
    """What is drawn of a row."""
    if wall:
        return Point(row["things"], row["per_second"], row["least"], row["most"])
    cheapest, dearest = row["cpu_us_range"]
    return Point(row["things"], 1e6 / row["cpu_us_per_execution"], 1e6 / dearest, 1e6 / cheapest)


def lines(rows: list[dict[str, Any]], *, over_http: bool, wall: bool) -> list[Line]:
    """The lines of one panel."""
    found: dict[str, Line] = {}
    for row in sorted(rows, key=lambda row: row["things"]):
        if row["window"] != WINDOW or (row["via"] == "HTTP") is not over_http:
            continue
        line = found.setdefault(row["server"], Line(row["server"], row["title"], []))
        line.points.append(point(row, wall=wall))
    return list(found.values())


def draw(found: dict[str, Any], *, wall: bool = False) -> str:
    """The whole picture."""
    rows = found["trips"]
    panels = [
        ("Without HTTP: driven from within, or over MQTT", lines(rows, over_http=False, wall=wall)),
        ("Over HTTP: one POST per execution", lines(rows, over_http=True, wall=wall)),
    ]
    title = "Command executions per second" + ("" if wall else " of the server's CPU time")
    panels = [(title, drawn) for title, drawn in panels if drawn]
    if not panels:
        raise SystemExit(f"plot: no row has a window of {WINDOW}")
    rates = [
        value for _, drawn in panels for line in drawn for p in line.points for value in (p.least, p.most)
    ]
    least = 10 ** math.floor(math.log10(max(1.0, min(rates))))
    y = Scale(least, max(rates) * 1.25, HEIGHT - BOTTOM, TOP)
    environment = found["environment"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}, over the number of things</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        _text(24, 30, title, "title"),
        _text(
            24,
            50,
            f"{WINDOW} in flight; each server on one core, the load on another; median of "
            f"{found['repeats']} runs of {found['seconds_per_run']:g} s with their range; "
            f"Python {environment['python']}, {environment['cores']} cores",
            "note",
        ),
    ]
    width = (WIDTH - 24) / len(panels)
    for number, (title, drawn) in enumerate(panels):
        parts += _panel(title, drawn, 24 + number * width, width - 24, y)
    return "\n".join((*parts, "</svg>")) + "\n"


def _panel(title: str, drawn: list[Line], left: float, width: float, y: Scale) -> list[str]:
    sizes = sorted({point.things for line in drawn for point in line.points})
    right = left + width - 176  # where the labels begin
    x = Scale(sizes[0] * 0.9, max(sizes[-1], sizes[0] * 2) * 1.05, left + 48, right - 8)
    parts = [_text(left, TOP - 12, title)]
    for mark in y.marks():
        at = y.at(mark)
        parts += [
            f'<line class="grid" x1="{left + 44:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>',
            _text(left + 38, at + 4, _short(mark), "note", anchor="end"),
        ]
    for size in sizes:
        parts.append(_text(x.at(size), HEIGHT - BOTTOM + 18, _short(size), "note", anchor="middle"))
    parts.append(
        _text((left + 48 + right) / 2, HEIGHT - BOTTOM + 38, "things connected", "note", anchor="middle")
    )
    labels = []
    for line in drawn:
        parts += _line(line, x, y)
        last = line.points[-1]
        labels.append((y.at(last.rate), line, x.at(last.things)))
    taken = -math.inf
    for wanted, line, end in sorted(labels, key=lambda label: label[0]):
        taken = max(wanted, taken + LABEL_GAP)
        colour = COLOURS.get(line.server, "#888")
        lead = f"M{end + 5:.1f} {wanted:.1f}L{right - 2:.1f} {taken:.1f}"
        parts += [
            f'<path d="{lead}" stroke="{colour}" opacity=".4"/>',
            _text(right + 2, taken + 4, line.title, style=f"fill:{colour}"),
        ]
    return parts


def _line(line: Line, x: Scale, y: Scale) -> list[str]:
    colour = COLOURS.get(line.server, "#888")
    kind = "line ours" if line.server.startswith("thingctl") else "line"
    places = [(x.at(p.things), y.at(p.rate), y.at(p.least), y.at(p.most)) for p in line.points]
    path = "M" + "L".join(f"{at:.1f} {middle:.1f}" for at, middle, _, _ in places)
    parts = [f'<path class="{kind}" stroke="{colour}" d="{path}"/>']
    for at, middle, low, high in places:
        parts += [
            f'<path stroke="{colour}" opacity=".5" d="M{at:.1f} {low:.1f}V{high:.1f}"/>',
            f'<circle cx="{at:.1f}" cy="{middle:.1f}" r="3.5" fill="{colour}"/>',
        ]
    return parts


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "", style: str = "") -> str:
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in (("class", kind), ("text-anchor", anchor), ("style", style))
        if value
    )
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'


def _short(number: float) -> str:
    """
    >>> _short(500), _short(20000)
    ('500', '20k')
    """
    return f"{number:g}" if number < 1000 else f"{number / 1000:g}k"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--wall", action="store_true", help="per second as it was, not of CPU time")
    options = parser.parse_args()
    options.svg.write_text(draw(json.loads(options.results.read_text()), wall=options.wall))


if __name__ == "__main__":
    main()
