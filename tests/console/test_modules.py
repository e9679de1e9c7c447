"""The console's small parts, by themselves, in the browser they are made for."""

from __future__ import annotations

import json
import random

import msgspec
import pytest

from thingctl_broker.cli.output import outcomes_line
from thingctl_broker.commands.outcomes import Tally, combine
from thingctl_protocol.statuses import Status


@pytest.fixture
def evaluate(look):
    """Runs JavaScript with one of the console's modules: ``evaluate("sse.js", "(m) => …")``."""
    page = look(signed_in=False)

    def evaluate(module, function, argument=None):
        return page.evaluate(
            f"""async ([module, argument]) => {{
              const base = document.querySelector("script[type=module]").src;
              return await ({function})(await import(new URL(module, base).href), argument);
            }}""",
            [module, argument],
        )

    return evaluate


def test_events_are_the_same_wherever_the_stream_is_cut(evaluate):
    stream = ': \nid: e-1\n\nevent: execution\r\nid: e-2\r\ndata: {"a":\ndata: 1}\n\ndata:x\n\nevent: half\ndata: 1'
    seen = evaluate(
        "sse.js",
        """({SseParser}, stream) => {
          const all = [];
          for (let cut = 0; cut <= stream.length; cut += 1) {
            const parser = new SseParser();
            all.push(JSON.stringify([[...parser.push(stream.slice(0, cut)), ...parser.push(stream.slice(cut))], parser.lastId]));
          }
          return [...new Set(all)];
        }""",
        stream,
    )
    events = '[{"event":"execution","data":"{\\"a\\":\\n1}"},{"event":"message","data":"x"}]'.replace(
        "\n", "\\n"
    )
    assert seen == [f'[{events},"e-2"]']


def test_durations_in_words(evaluate):
    seconds = [0, 0.0004, 0.009, 0.25, 0.9996, 4.24, 59.96, 192, 7500, 200_000, None]
    assert evaluate("format.js", "({duration}, all) => all.map((s) => duration(s ?? NaN))", seconds) == [
        "0 ms",
        "0.4 ms",
        "9 ms",
        "250 ms",
        "1.0 s",
        "4.2 s",
        "1 min 0 s",
        "3 min 12 s",
        "2 h 5 min",
        "2 d 7 h",
        "\N{EN DASH}",
    ]


def test_numbers_stay_as_they_were_written(evaluate):
    for text in ("12345678901234567890", "0.1", "1e400", "-0.30000000000000000001", "[1,2.5,null]"):
        assert evaluate("json.js", "({parse, write}, text) => write(parse(text))", text) == text


def test_a_place_is_the_same_there_and_back(evaluate):
    place = {"path": ["things", "a/b ?#%"], "query": {"q": "ä&=+ #"}}
    seen = evaluate("router.js", "({hashOf, parseHash}, p) => parseHash(hashOf(p.path, p.query))", place)
    assert seen == place


def test_a_cursor_names_a_moment(evaluate):
    assert evaluate("executions.js", "({cursorAt}) => cursorAt(0x0123456789abc)") == (
        "12345678-9abc-7000-8000-000000000000"
    )


OUTCOME_LINES = """({outcomeParts}, all) => all.map((outcomes) => outcomeParts(outcomes).map((part) => {
  const names = part.names.length ? `(${[...part.names, ...(part.more ? ["…"] : [])].join(", ")})` : null;
  return [part.count, part.status, ...part.words, names].filter(Boolean).join(" ");
}).join(" · "))"""


def test_outcomes_are_shown_as_the_command_line_shows_them(evaluate):
    draw = random.Random(7)
    groups = []
    for _ in range(200):
        rows = [
            Tally(
                draw.choice((Status.SUCCEEDED, Status.FAILED, Status.SENT)),
                draw.choice(("", "VALVE", "NO_DISK")),
                draw.choice((None, None, b"1", b'"x"')),
                1,
                (f"thing-{number}",),
            )
            for number in range(draw.randrange(9))
        ]
        groups.append(json.loads(msgspec.json.encode(combine(rows))))
    assert evaluate("outcomes.js", OUTCOME_LINES, groups) == [outcomes_line(group) for group in groups]
