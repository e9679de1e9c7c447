"""``thingctl audit verify``."""

from __future__ import annotations

from thingctl_broker.audit.chain import AUDIT_FILE
from thingctl_broker.audit.log import Audit
from thingctl_broker.security.audit_events import Event


def test_it_tells_whether_the_file_is_whole(quick, tmp_path):
    directory = tmp_path / "data"
    assert quick("audit", "verify", "--data-dir", str(directory)).code == 2
    audit = Audit(directory, lambda: 0.0)
    audit.note(Event.THING_ADDED, thing="lamp")
    audit.stop()
    ran = quick("audit", "verify", "--data-dir", str(directory))
    assert ran.out.startswith("whole: 1 records in 1 files, 0 not sealed yet\nlast seal: ")
    told = quick("audit", "verify", "--data-dir", str(directory), "--json").json
    assert told["last_seal"] == ran.out.split()[-1]
    assert quick("audit", "verify", "--data-dir", str(directory), "--seal", told["last_seal"]).code == 0
    assert quick("audit", "verify", "--data-dir", str(directory), "--seal", "f" * 64).code == 1
    path = directory / AUDIT_FILE
    path.write_bytes(path.read_bytes().replace(b"lamp", b"lock"))
    ran = quick("audit", "verify", "--data-dir", str(directory))
    assert (ran.code, ran.out) == (1, "")
    assert f"{path}, line 2: something before this seal was changed" in ran.err
