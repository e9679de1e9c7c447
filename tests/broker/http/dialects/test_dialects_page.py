"""docs/dialects.md says what is so: its examples run, its tables are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from broker.http.running import AUTHORIZED, TOKEN, RunningApi
from broker.http.test_docs import ANY, STEP, is_as_told, parts, readable
from thingctl_broker.http.dialects import graph, navixy

PAGE = (Path(__file__).parents[4] / "docs" / "dialects.md").read_text(encoding="utf-8")


@pytest.fixture
def api():
    running = RunningApi(things=("1234567890", "kiosk"))
    yield running
    running.close()


def test_every_example_runs(api):
    steps = list(STEP.finditer(PAGE))
    assert len(steps) == PAGE.count("```http") / 2 + PAGE.count("<!--")
    for step in steps:
        if step["answer"]:
            newest = api.newest()
            answer = step["answer"].encode()
            api.answer(newest.thing, newest.execution_id, answer)
            continue
        line, headers, body = parts(step["request"].replace("your_api_key_hash", TOKEN))
        method, target = line.split()
        authorized = {} if target.startswith("/v2/") else AUTHORIZED
        reply = api.request(method, target, body or None, headers=authorized | headers)
        status, told_headers, told = parts(step["reply"])
        assert reply.status == int(status), (step[0], reply)
        for name, value in told_headers.items():
            assert re.fullmatch(re.escape(value).replace(ANY, "[^ ]+"), reply.headers[name.lower()])
        assert is_as_told(readable(told), reply.json), (step[0], reply.json)
        if method == "POST" and reply.status < 300:  # in the order that is told, too
            assert list(reply.json) == list(json.loads(told.replace(f"{ANY}", "-")))


def test_the_tables_are_complete():
    for code, _, status in navixy.CODES.values():
        row = rf"^\| (\d+, )?{code}(, \d+)? \| {status} \|"
        assert re.search(row, PAGE, re.MULTILINE), code
    for word in {*navixy.WORDS.values(), *graph.WORDS.values(), *graph.CODES.values()}:
        assert f"`{word}`" in PAGE, word
