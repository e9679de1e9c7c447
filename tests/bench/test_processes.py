from __future__ import annotations

import os
import sys
import time

import pytest

from cores import plan_cores
from processes import BenchError, Child, core_seconds, cpu_seconds, on_cores, rss_bytes


def python(code: str, **options: object) -> Child:
    return Child("child", [sys.executable, "-c", code], **options)  # type: ignore[arg-type]


def test_a_child_that_says_nothing_is_given_up_on() -> None:
    with python("import time; time.sleep(60)") as child, pytest.raises(BenchError, match="said nothing"):
        child.expect("ready", 0.2)


def test_a_child_that_died_leaves_its_last_words() -> None:
    with (
        python("raise SystemExit('no such thing')") as child,
        pytest.raises(BenchError, match="no such thing"),
    ):
        child.expect("ready", 10)


def test_a_child_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processes.STOP_SECONDS", 0.3)
    child = python(
        'import signal, time; signal.signal(15, signal.SIG_IGN); print(\'{"event": "ready"}\', flush=True);'
        "time.sleep(60)"
    )
    child.expect("ready", 10)
    assert child.stop() == -9
    assert not child.alive


def test_lines_that_are_no_events_are_passed_over() -> None:
    with python(
        'print(\'a banner\'); print(\'{"event": "other"}\'); print(\'{"event": "x", "n": 3}\')'
    ) as child:
        assert child.expect("x", 10)["n"] == 3


def test_a_child_runs_on_the_cores_it_was_given() -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    code = "import json, os; print(json.dumps({'event': 'on', 'cores': list(os.sched_getaffinity(0))}))"
    with python(code, cores=frozenset({core})) as child:
        assert child.expect("on", 10)["cores"] == [core]
    assert os.sched_getaffinity(0) == before
    with on_cores(None):
        assert os.sched_getaffinity(0) == before


def test_cpu_and_memory_of_a_process_are_read() -> None:
    before = cpu_seconds([os.getpid()])
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert 0.02 <= cpu_seconds([os.getpid()]) - before < 5
    assert core_seconds(frozenset(os.sched_getaffinity(0))) >= cpu_seconds([os.getpid()])
    assert core_seconds(frozenset()) == 0
    assert rss_bytes([os.getpid()]) > 1_000_000


@pytest.mark.parametrize(("available", "apart"), [({0}, False), ({0, 1}, True), ({2, 3, 5, 7}, True)])
def test_the_server_has_a_core_of_its_own_when_there_are_two(available: set[int], apart: bool) -> None:
    cores = plan_cores(frozenset(available))
    assert cores.apart is apart
    assert cores.server | cores.fleet | cores.controller <= available
