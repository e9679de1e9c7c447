"""The load of ordinary messages against mosquitto."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from processes import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCH = Path(__file__).parents[2] / "bench"


def order(load: Child, do: str, **fields: Any) -> dict[str, Any]:
    return load.ask(json.dumps({"do": do, "pids": [load.pid], **fields}), do, 20)


@pytest.fixture
def load(mosquitto_port: int) -> Iterator[Child]:
    with Child(
        "traffic", [sys.executable, str(BENCH / "traffic.py"), "--port", str(mosquitto_port)]
    ) as child:
        yield child


@pytest.mark.system
@pytest.mark.parametrize(
    ("publishers", "copies", "qos"), [(1, 1, 0), (1, 1, 1), (5, 1, 0), (5, 1, 1), (1, 5, 0), (2, 3, 1)]
)
def test_what_is_sent_is_delivered_and_counted(load: Child, publishers: int, copies: int, qos: int) -> None:
    order(load, "flows", publishers=publishers, copies=copies, qos=qos)
    found = order(load, "run", window=5, messages=100)
    assert found["count"] == 100 * publishers * copies
    assert found["lost"] == 0
    assert order(load, "heard")["count"] == found["count"]
    found = order(load, "run", window=5, warmup=0.05, seconds=0.1)
    assert found["count"] > 0
    assert found["lost"] == 0
    order(load, "end")


@pytest.mark.system
def test_what_came_while_the_subscribers_were_away_is_counted_when_they_are_back(load: Child) -> None:
    for _ in range(2):  # nothing is left over for the second
        order(load, "flows", publishers=3, copies=1, qos=1, kept=True)
        order(load, "away")
        assert order(load, "run", window=1, messages=20)["count"] == 60
        found = order(load, "back", messages=20)
        assert (found["came"], found["lost"]) == (60, 0)
        order(load, "end")


@pytest.mark.system
def test_bystanders_come_and_go(load: Child) -> None:
    for _ in range(2):
        found = order(load, "clients", count=70, name="by-{n}", filters=["idle/{n}/+", "idle/{n}/#"])
        assert found["count"] == 70
        order(load, "leave")
