"""The audit file: what is in it, and that it proves itself."""

import hashlib
import json
import os
import stat

import pytest
from structlog.testing import capture_logs

from support.waits import soon
from thingctl_broker.audit import log as module
from thingctl_broker.audit.chain import AUDIT_FILE, Broken, Verified, files, verify
from thingctl_broker.audit.log import TOLD, Audit, AuditError
from thingctl_broker.security.audit_events import Event
from thingctl_broker.security.caller import Caller, origin
from thingctl_broker.testing import service_with_fakes

AT = 1_748_390_400.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "GATHER", 0.0)


@pytest.fixture
def caller():
    token = origin.set(Caller("night-shift", "192.0.2.7"))
    yield
    origin.reset(token)


def records(directory):
    found = []
    for path in files(directory):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in found if "seal" not in record]


def written(directory, count, *, start=0):
    """An audit of ``count`` records, one batch each."""
    audit = Audit(directory, lambda: AT)
    for i in range(count):
        before = audit._path.stat().st_size
        audit.note(Event.THING_ADDED, thing=f"t{start + i}")
        soon(lambda before=before: audit._path.stat().st_size > before)
    audit.stop()


def test_a_command_is_followed_from_who_sent_it_to_how_it_ended(tmp_path, caller):
    audit = Audit(tmp_path, lambda: AT + 1)
    service, _, _ = service_with_fakes(["lamp"])
    service.events.subscribe(audit.on_change, TOLD)
    params = b'{"password":"hunter2"}'
    execution = service.send("lamp", "setWifi", params, requested_by="night-shift")
    service.connected("lamp", "c")
    service.reachable("lamp")
    origin.set(Caller("", ""))
    service.respond(
        "lamp", execution.execution_id, b'{"status":"SUCCEEDED","result":"hunter2"}', lambda: None
    )
    audit.stop()
    sent, ended = records(tmp_path)
    digest = hashlib.sha256(params).hexdigest()
    assert sent == {
        "at": "2025-05-28T00:00:00.000Z",
        "event": "command.sent",
        "who": "night-shift",
        "source": "192.0.2.7",
        "thing": "lamp",
        "action": "setWifi",
        "executionId": execution.execution_id,
        "commandId": execution.command_id,
        "detail": f"params sha256:{digest}",
    }
    assert ended == {
        "at": "2025-05-28T00:00:01.000Z",
        "event": "command.ended",
        "who": "night-shift",
        "thing": "lamp",
        "action": "setWifi",
        "executionId": execution.execution_id,
        "commandId": execution.command_id,
        "status": "SUCCEEDED",
    }
    assert "hunter2" not in (tmp_path / AUDIT_FILE).read_text()


def test_a_cancel_and_a_late_answer_are_there_too(tmp_path, caller):
    audit = Audit(tmp_path, lambda: AT)
    service, _, clock = service_with_fakes(["lamp"])
    service.events.subscribe(audit.on_change, TOLD)
    service.connected("lamp", "c")
    service.reachable("lamp")
    execution = service.send("lamp", "x", ttl=5, requested_by="day-shift")
    service.cancel(execution.execution_id)
    clock.advance(100)
    service.expire()
    service.respond("lamp", execution.execution_id, b'{"status":"SUCCEEDED"}', lambda: None)
    audit.stop()
    told = [(r["event"], r.get("who"), r.get("status")) for r in records(tmp_path)]
    assert [event for event, _, _ in told] == [
        "command.sent",
        "command.cancel",
        "command.ended",
        "command.late",
    ]
    assert [who for _, who, _ in told] == ["day-shift", "night-shift", "day-shift", "day-shift"]
    assert told[3][2] == "SUCCEEDED"


def test_a_whole_chain_verifies_also_over_restarts(tmp_path):
    written(tmp_path, 3)
    written(tmp_path, 2, start=3)
    verdict = verify(files(tmp_path))
    assert isinstance(verdict, Verified)
    assert (verdict.records, verdict.files, verdict.unsealed) == (5, 1, 0)
    assert verify(files(tmp_path), verdict.last_seal) == verdict
    assert [record["thing"] for record in records(tmp_path)] == [f"t{i}" for i in range(5)]
    assert stat.S_IMODE((tmp_path / AUDIT_FILE).stat().st_mode) == 0o600


def test_full_files_are_put_aside_and_the_chain_goes_on(tmp_path):
    audit = Audit(tmp_path, lambda: AT, file_max=300)
    for i in range(6):
        audit.note(Event.THING_ADDED, thing=f"t{i}")
        soon(lambda i=i: len(records(tmp_path)) == i + 1)
    audit.stop()
    assert len(files(tmp_path)) >= 2
    assert files(tmp_path)[0].name == "audit-000001.log"
    verdict = verify(files(tmp_path))
    assert (verdict.records, verdict.files) == (6, len(files(tmp_path)))
    files(tmp_path)[0].unlink()
    assert isinstance(verify(files(tmp_path)), Broken)


@pytest.mark.parametrize("torn", [b'{"at":"2025', b'{"at":"x","event":"y"}\n', b'{"seal":"00'])
def test_a_crash_in_the_middle_of_a_write_is_no_forgery(tmp_path, torn):
    written(tmp_path, 2)
    with (tmp_path / AUDIT_FILE).open("ab") as file:
        file.write(torn)
    assert isinstance(verify(files(tmp_path)), Verified)
    written(tmp_path, 1, start=2)
    verdict = verify(files(tmp_path))
    assert isinstance(verdict, Verified), verdict
    assert verdict.unsealed == 0


def test_text_of_others_cannot_make_a_line(tmp_path):
    audit = Audit(tmp_path, lambda: AT)
    audit.note(Event.THING_CHANGED, thing="lamp", detail='x"}\n{"seal":"' + "0" * 64 + '"}\n\x1b[2J')
    audit.stop()
    assert len((tmp_path / AUDIT_FILE).read_bytes().splitlines()) == 2
    assert isinstance(verify(files(tmp_path)), Verified)
    assert b"\x1b" not in (tmp_path / AUDIT_FILE).read_bytes()


def test_what_does_not_fit_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUEUED_MAX", 0)
    audit = Audit(tmp_path, lambda: AT)
    for _ in range(7):
        audit.note(Event.STARTED)
    audit.stop()
    (record,) = records(tmp_path)
    assert (record["event"], record["detail"]) == ("audit.lost", "7 records")


def test_a_disk_that_fails_breaks_no_chain(tmp_path, monkeypatch):
    written(tmp_path, 1)
    real, failures = os.write, []

    def write(file, data):
        if len(failures) < 2 and b"broken" in bytes(data):
            failures.append(1)
            real(file, bytes(data)[:20])
            raise OSError(28, "No space left on device")
        return real(file, data)

    audit = Audit(tmp_path, lambda: AT)
    monkeypatch.setattr(module.os, "write", write)
    audit.note(Event.THING_ADDED, thing="broken")
    soon(lambda: failures)
    audit.note(Event.THING_ADDED, thing="after")
    soon(lambda: "after" in (tmp_path / AUDIT_FILE).read_text())
    audit.stop()
    assert isinstance(verify(files(tmp_path)), Verified), verify(files(tmp_path))


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
@pytest.mark.parametrize("turned_before", [False, True])
def test_a_file_that_is_moved_is_noticed_and_a_new_chain_begins(tmp_path, how, turned_before):
    written(tmp_path, 2)
    audit = Audit(tmp_path, lambda: AT, file_max=1 if turned_before else module.FILE_MAX)
    audit.note(Event.THING_ADDED, thing="before")
    soon(lambda: any(record.get("thing") == "before" for record in records(tmp_path)))
    if turned_before:
        soon(lambda: len(files(tmp_path)) == 2)
    path = tmp_path / AUDIT_FILE
    path.rename(tmp_path / "audit.log.1") if how != "removed" else path.unlink()
    if how == "replaced":
        path.write_text("")
    with capture_logs() as logs:
        audit.note(Event.THING_ADDED, thing="after")
        soon(lambda: path.exists() and b"after" in b"".join(f.read_bytes() for f in files(tmp_path)))
        audit.stop()
    assert any(entry["log_level"] == "error" and "removed or moved" in entry["event"] for entry in logs)
    verdict = verify(files(tmp_path))
    assert isinstance(verdict, Verified), verdict
    (begun,) = verdict.begun_again
    assert "was removed or moved" in begun
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Audit(tmp_path, lambda: AT).stop()  # and the chain goes on after a restart
    assert isinstance(verify(files(tmp_path)), Verified)


def test_records_that_cannot_be_written_are_counted(tmp_path, monkeypatch):
    written(tmp_path, 1)
    audit = Audit(tmp_path, lambda: AT)
    away = tmp_path.rename(tmp_path.with_name("away"))
    for failures in (1, 2, 3):
        with capture_logs() as logs:
            audit.note(Event.THING_ADDED, thing=f"lost {failures}")
            soon(lambda found=logs: found)
    away.rename(tmp_path)
    audit.note(Event.THING_ADDED, thing="after")
    audit.stop()
    lost = [record["detail"] for record in records(tmp_path) if record["event"] == "audit.lost"]
    assert lost == ["3 records"]


def test_a_directory_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError):
        Audit(tmp_path / "file", lambda: AT)
