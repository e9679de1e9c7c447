"""What an agent makes of the records that an earlier run has left, after a restart and after a reboot."""

from __future__ import annotations

import pytest

from agent.core import Core, interrupted, registry, responses, restarted, saved, started, verdicts
from thingctl_agent.core.effects import Start
from thingctl_agent.core.history import Accepted, Rebooting, Started
from thingctl_agent.core.outcome import failed, succeeded
from thingctl_agent.core.pending import Limits
from thingctl_agent.core.session import REBOOT_WITHIN
from thingctl_agent.handlers.registry import Registry


def test_an_accepted_record_holds_what_a_restart_needs():
    core = Core()
    core.request("e1", ttl=60, age=10)
    record = core.records[0]
    assert isinstance(record, Accepted)
    assert (record.action, record.params, record.ttl, record.deadline) == ("a", b"{}", 60, core.now + 50)


# -- restarts


def test_an_unacknowledged_response_is_said_after_a_restart():
    core = Core(connected=False)
    core.request("e1")
    core.finish("e1", succeeded(5))
    assert responses(restarted(core).connect()) == [{"status": "SUCCEEDED", "result": 5}]


def test_a_call_that_was_interrupted_fails_and_is_not_run_again():
    core = Core()
    core.request("e1")
    new = restarted(core)
    assert started(new.effects) == []
    assert verdicts(new.connect()) == ["FAILED INTERRUPTED"]
    assert started(new.request("e1")) == []


def test_a_call_that_had_not_begun_runs_after_a_restart():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b")
    assert started(restarted(core).effects) == ["e2"]


def test_a_call_that_may_have_begun_does_not_when_the_journal_lost_something():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b")
    new = restarted(core, trusted=False)
    assert started(new.effects) == []
    assert verdicts(new.connect()) == ["FAILED INTERRUPTED", "FAILED INTERRUPTED"]


def test_what_expired_during_the_restart_is_not_run():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b", ttl=10)
    core.now += 11
    new = restarted(core)
    assert verdicts(new.connect(), "e2") == ["REJECTED EXPIRED"]


def test_after_a_reboot_the_age_is_judged_anew():
    core = Core(limits=Limits(running=1))
    core.request("e1")
    core.request("e2", "b", ttl=10)
    new = restarted(core, boot_id="boot-2", wall=False)
    assert started(new.effects) == [], "the time since boot started again: the old deadline means nothing"
    new.connect()
    new.now += 1
    assert started(new.broker_time()) == ["e2"]


@pytest.mark.parametrize("on_restart", ["rerun", "resume"])
def test_a_call_that_may_be_begun_again_is_but_not_for_ever(on_restart):
    core = Core(registry(a={"on_restart": on_restart}))
    core.request("e1", ttl=1000)
    core.take(core.session.keep("e1", b'{"step":1}'))
    for attempt in (2, 3):
        new = restarted(core)
        start = next(e for e in new.effects if isinstance(e, Start))
        assert (start.attempt, start.saved) == (attempt, b'{"step":1}')
        core.records += new.records
    new = restarted(core)
    assert started(new.effects) == []
    assert verdicts(new.connect()) == ["FAILED INTERRUPTED"]


def test_a_rerun_that_has_expired_meanwhile_fails():
    core = Core(registry(a={"on_restart": "rerun"}))
    core.request("e1", ttl=10)
    core.now += 11
    assert verdicts(restarted(core).connect()) == ["FAILED INTERRUPTED"]


def test_an_action_that_is_gone_after_a_restart_fails():
    core = Core(registry(gone={"on_restart": "rerun"}))
    core.request("e1", "gone")
    assert verdicts(restarted(core, registry()).connect()) == ["FAILED INTERRUPTED"]


def test_an_execution_whose_first_record_is_lost_fails():
    core = Core()
    core.records = [Started("e1", 1)]
    assert verdicts(restarted(core, trusted=False).connect()) == ["FAILED INTERRUPTED"]


# -- reboots


def rebooting():
    core = Core(registry(boot={"reboots": True}))
    core.request("e1", "boot", ttl=600)
    return core


def test_the_started_record_of_a_reboot_is_flushed():
    assert saved(rebooting().effects) == [("Accepted", True), ("Started", True)]


def test_a_reboot_succeeds_once_the_boot_id_has_changed():
    core = rebooting()
    assert verdicts(core.finish("e1", succeeded({"ok": 1}))) == [], "not yet"
    assert responses(restarted(core, boot_id="boot-2").connect()) == [
        {"status": "SUCCEEDED", "result": {"ok": 1}}
    ]


def test_a_reboot_fails_when_only_the_agent_restarted():
    core = rebooting()
    core.finish("e1")
    new = restarted(core)
    assert verdicts(new.connect()) == ["FAILED NOT_REBOOTED"]
    assert started(new.request("e1", "boot")) == [], "no loop"


def intending(result=None):
    core = rebooting()
    core.take(core.session.rebooting("e1", result, core.now))
    return core


@pytest.mark.parametrize("trusted", [True, False])
def test_a_device_that_went_down_inside_the_handler_was_interrupted(trusted):
    assert verdicts(restarted(rebooting(), boot_id="boot-2", trusted=trusted).connect()) == [
        "FAILED INTERRUPTED"
    ]
    assert verdicts(restarted(rebooting()).connect()) == ["FAILED NOT_REBOOTED"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_device_that_went_down_after_the_handlers_record_has_rebooted(trusted):
    core = intending({"version": 2})
    assert saved(core.effects)[-1] == ("Rebooting", True)
    assert responses(restarted(core, boot_id="boot-2", trusted=trusted).connect()) == [
        {"status": "SUCCEEDED", "result": {"version": 2}}
    ]
    assert verdicts(restarted(core).connect()) == ["FAILED NOT_REBOOTED"]


def test_a_stop_interrupts_what_reboots_unless_it_is_recorded():
    core = rebooting()
    assert interrupted(core.take(core.session.stop())) == ["e1"]
    assert core.session.busy
    assert verdicts(core.take(core.session.abandon())) == ["FAILED INTERRUPTED"]
    core = intending()
    assert interrupted(core.take(core.session.stop())) == []
    assert not core.session.busy
    assert core.take(core.session.abandon()) == []


def test_what_is_recorded_is_not_canceled_and_does_not_time_out():
    core = Core(registry(boot={"reboots": True, "timeout": 5}))
    core.request("e1", "boot", ttl=600)
    core.take(core.session.rebooting("e1", None, core.now))
    assert interrupted(core.cancel("e1")) == []
    assert verdicts(core.wait(60)) == []
    core.request("e2", "a", ttl=1000)
    assert started(core.effects) == ["e1"], "nothing starts while the device goes down"
    assert verdicts(core.wait(REBOOT_WITHIN)) == ["FAILED NOT_REBOOTED"]


def test_what_could_not_be_recorded_is_interrupted_as_others_are():
    core = intending()
    core.take(core.session.unsaved(Rebooting("e1", b""), core.now, core.wall))
    assert interrupted(core.take(core.session.stop())) == ["e1"]


def test_an_action_that_is_gone_and_was_not_begun_is_rejected():
    core = Core()
    core.session.stop()
    core.request("e1", ttl=600)
    others = Registry()
    others.add(lambda: None, "c")
    new = restarted(core, others)
    assert verdicts(new.connect()) == ["REJECTED UNKNOWN_ACTION"]
    assert verdicts(restarted(core, others, trusted=False).connect()) == ["FAILED INTERRUPTED"]


def test_a_reboot_that_does_not_come_fails():
    core = rebooting()
    core.finish("e1")
    assert verdicts(core.wait(REBOOT_WITHIN + 1)) == ["FAILED NOT_REBOOTED"]


def test_a_reboot_that_failed_says_so():
    core = rebooting()
    assert verdicts(core.finish("e1", failed("NO", "it will not"))) == ["FAILED NO"]


def test_nothing_starts_while_the_device_goes_down():
    core = rebooting()
    core.finish("e1")
    core.request("e2", "a", ttl=1000)
    assert started(core.effects) == ["e1"]
    assert started(restarted(core, boot_id="boot-2").effects) == ["e2"]
