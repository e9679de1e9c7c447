"""Draws docs/architecture.svg: the two journeys of a command through the rooms of the code.

python docs/architecture.py    # writes the picture beside this file
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

PICTURE: Final = Path(__file__).with_suffix(".svg")
WIDTH: Final = 1040
HEIGHT: Final = 620
LINE: Final = 15
"""Pixels from one line of text to the next."""

CHARACTER: Final = 6.5
"""Pixels of an average character of the text, estimated on the large side."""

STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 }
.room { font-weight: 600; fill: #1673d1 }
.outside { font-weight: 600 }
.note { fill: #666 }
.paper { fill: #fff }
.box { fill: #f4f8fd; stroke: #1673d1 }
.box-outside { fill: #f6f6f6; stroke: #999 }
.arrow { fill: none; stroke: #666; stroke-width: 1.5 }
.head { fill: #666 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .room { fill: #6fb1ef } .note { fill: #aaa } .paper { fill: #16181c }
  .box { fill: #1b2633 } .box-outside { fill: #222 } .arrow { stroke: #aaa } .head { fill: #aaa }
}
"""

AGENT: Final = "agent"
OUTSIDE: Final = frozenset({"caller", "device", AGENT})
"""Titles of boxes that are no room of the broker."""


class Box(NamedTuple):
    """A room at work. ``title``: the room; ``lines``: what it does; the rest in pixels."""

    title: str
    lines: tuple[str, ...]
    left: int
    top: int
    width: int = 178
    height: int = 84

    @property
    def middle(self) -> int:
        """The height at which arrows come and go."""
        return self.top + self.height // 2


COLUMNS: Final = (20, 225, 430, 635, 840)

REQUEST: Final = (
    Box("caller", ("POST /api/v1/commands", "(curl, cli, console)"), COLUMNS[0], 64),
    Box("http", ("reads the request;", "security checks token", "and rate"), COLUMNS[1], 64),
    Box(
        "commands",
        ("things checks params;", "a new execution; it", "waits here for a device"),
        COLUMNS[2],
        64,
    ),
    Box("storage", ("one commit for all that", "has gathered, flushed", "to the disk"), COLUMNS[3], 64),
    Box("mqtt", ("PUBLISH, QoS 1, on the", "thing's connection"), COLUMNS[4], 64),
)
ACCEPTED: Final = (
    Box("caller", ("201: accepted and kept",), COLUMNS[0], 188, height=56),
    Box("http", ("after the commit",), COLUMNS[1], 188, height=56),
)
SOCKET: Final = Box("device", ("bytes on its socket",), COLUMNS[4], 188, height=56)

RESPONSE: Final = (
    Box(
        AGENT,
        ("runtime ends a handler;", "core decides; journal", "keeps it; PUBLISH"),
        COLUMNS[0],
        320,
    ),
    Box("mqtt", ("a thing answers only its", "own executions"), COLUMNS[1], 320),
    Box("commands", ("one table of moves; a", "verdict never changes"), COLUMNS[2], 320),
    Box("storage", ("the verdict is flushed", "to the disk"), COLUMNS[3], 320),
)
EVERYBODY: Final = tuple(
    Box(title, (line,), COLUMNS[4], 320 + 58 * i, height=48)
    for i, (title, line) in enumerate(
        (
            ("mqtt", "PUBACK to the device"),
            ("http", "waiting calls, streams"),
            ("rollouts", "the next things get it"),
            ("webhooks", "signed posts"),
            ("audit", "the hash chain"),
        )
    )
)
BOXES: Final = (*REQUEST, *ACCEPTED, SOCKET, *RESPONSE, *EVERYBODY)

TITLES: Final = (
    (20, 40, "A command: from a POST until it is bytes on a device's socket"),
    (20, 296, "A response: until every part of the system knows"),
)
NOTES: Final = (
    (20, 440, "The same response again: acknowledged, and ignored."),
    (20, 458, "After TIMED_OUT or CANCELED: kept beside the verdict, as late."),
    (20, 476, "The broker dies before its commit: no PUBACK, so the device sends it again."),
    (20, 494, "The agent dies: its journal sends the response when it runs again."),
    (20, 530, "As one of several workers, cluster takes the place of mqtt's own connections: it receives"),
    (20, 548, "through an MQTT cluster, and storage is PostgreSQL."),
    (20, 566, "app puts the rooms together; cli starts them, and is a caller like any other."),
    (20, 584, "system has the files, the clocks and the addresses."),
)


def draw() -> str:
    """Return the picture, the same text each time."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>The two journeys of a command through the rooms of thingctl</title>",
        f"<style>\n{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        *(_text(x, y, "title", text) for x, y, text in TITLES),
        *(_text(x, y, "note", text) for x, y, text in NOTES),
        *(part for box in BOXES for part in _box(box)),
        *_arrows(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _arrows() -> list[str]:
    steps = [_to_the_right(*pair) for pair in (*pairwise(REQUEST), *pairwise(RESPONSE))]
    storage, http = REQUEST[3], ACCEPTED[1]
    answer = [(storage.left + storage.width // 2, storage.top + storage.height)]
    answer += [(answer[0][0], http.middle), (http.left + http.width, http.middle)]
    mqtt = REQUEST[4]
    down = [(mqtt.left + mqtt.width // 2, mqtt.top + mqtt.height), (mqtt.left + mqtt.width // 2, SOCKET.top)]
    caller = ACCEPTED[0]
    back = [(http.left, http.middle), (caller.left + caller.width, caller.middle)]
    return [_arrow(points) for points in (*steps, answer, back, down, *_fan())]


def _fan() -> list[list[tuple[int, int]]]:
    storage = RESPONSE[3]
    right, trunk = storage.left + storage.width, COLUMNS[4] - 16
    return [
        [(right, storage.middle), (trunk, storage.middle), (trunk, box.middle), (box.left, box.middle)]
        for box in EVERYBODY
    ]


def _to_the_right(first: Box, second: Box) -> list[tuple[int, int]]:
    return [(first.left + first.width, first.middle), (second.left, second.middle)]


def _box(box: Box) -> list[str]:
    outside = box.title in OUTSIDE
    shape = "box-outside" if outside else "box"
    place = f'x="{box.left}" y="{box.top}" width="{box.width}" height="{box.height}"'
    rest = [
        _text(box.left + 10, box.top + 20 + LINE * i, "", line) for i, line in enumerate(box.lines, start=1)
    ]
    return [
        f'<rect class="{shape}" {place} rx="6"/>',
        _text(box.left + 10, box.top + 20, "outside" if outside else "room", box.title),
        *rest,
    ]


def _arrow(points: list[tuple[int, int]]) -> str:
    path = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(points))
    (before_x, before_y), (x, y) = points[-2:]
    along = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    tip = [(x, y), *((x - 7 * along[0] + s * along[1], y - 7 * along[1] + s * along[0]) for s in (-4, 4))]
    head = " ".join(f"{px},{py}" for px, py in tip)
    return f'<path class="arrow" d="{path}"/><polygon class="head" points="{head}"/>'


def _text(x: int, y: int, kind: str, text: str) -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
