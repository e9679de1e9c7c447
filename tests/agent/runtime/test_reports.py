"""What handlers report, on its way to the session."""

from __future__ import annotations

import threading

import pytest

from agent.core import Core, registry, saved
from thingctl_agent import CommandFailed
from thingctl_agent.runtime.inbox import RequestInbox
from thingctl_agent.runtime.reports import HandlerReports, Latest


def test_many_reports_are_one_call_with_the_latest():
    inbox, heard = RequestInbox(), []
    latest = Latest(inbox.post, lambda *report: heard.append(report))
    for number in range(1000):
        latest.put("e1", number)
        latest.put("e2", -number)
    calls = []
    while (what := inbox.take()) is not None:
        calls.append(what)
        what()
    assert len(calls) == 1
    assert heard == [("e1", 999), ("e2", -999)]
    latest.put("e1", 1000)
    assert inbox.take() is not None


@pytest.mark.parametrize("written", [True, False])
def test_a_restart_is_recorded_before_the_handler_goes_on(written):
    core, inbox, ended = Core(registry(boot={"reboots": True})), RequestInbox(), []
    core.request("e1", "boot", ttl=600)

    def do(effects):
        core.take(effects)
        return set() if written else {"e1"}

    reports = HandlerReports(inbox.post, core.session, do, lambda: core.now, core.wall)

    def handler():
        try:
            reports.rebooting("e1", {"version": 2})
        except CommandFailed as error:
            ended.append(error.code)
        else:
            ended.append(saved(core.effects)[-1])

    thread = threading.Thread(target=handler)
    thread.start()
    inbox.wait(10, None)
    while (what := inbox.take()) is not None:
        what()
    thread.join(10)
    assert ended == [("Rebooting", True) if written else "JOURNAL_UNAVAILABLE"]
