from __future__ import annotations

import asyncio

import pytest

from in_process import Heartbeat, InProcessLoad


class Echo:
    """Ends each execution one turn of the loop later, or never."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.open = self.most_open = 0
        self.silent = False
        self.load = InProcessLoad(self.send)

    def send(self, thing: str) -> str:
        self.sent.append(thing)
        execution_id = f"e{len(self.sent)}"
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if not self.silent:
            asyncio.get_running_loop().call_soon(self.end, execution_id)
        return execution_id

    def end(self, execution_id: str) -> None:
        self.open -= 1
        self.load.ended(execution_id, "SUCCEEDED")


async def test_so_many_are_in_flight_and_no_more_over_things_in_turn() -> None:
    echo = Echo()
    result = await echo.load.run(things=3, window=5, warmup=0.02, seconds=0.1)
    assert echo.most_open == 5
    assert echo.sent[:4] == ["thing-00000", "thing-00001", "thing-00002", "thing-00000"]
    assert result["lost"] == 0
    assert result["ended"] == {"SUCCEEDED": result["sent"]} == {"SUCCEEDED": len(echo.sent)}
    assert 0 < result["executions"] < result["sent"]
    assert result["per_second"] == pytest.approx(result["executions"] / result["seconds"], rel=0.01)


async def test_what_has_not_ended_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("in_process.DRAIN_SECONDS", 0.05)
    echo = Echo()
    echo.silent = True
    result = await echo.load.run(things=1, window=4, warmup=0.01, seconds=0.02)
    assert (result["sent"], result["lost"], result["executions"]) == (4, 4, 0)
    assert result["latency_ms"] == {}


async def test_the_heartbeat_feels_a_loop_that_stands_still() -> None:
    heartbeat = Heartbeat()
    task = asyncio.create_task(heartbeat.beat())
    await asyncio.sleep(0.02)
    import time

    time.sleep(0.1)  # noqa: ASYNC251 that is the point
    await asyncio.sleep(0.01)
    assert 0.08 < heartbeat.longest() < 2
    assert heartbeat.longest() < 0.08
    task.cancel()
