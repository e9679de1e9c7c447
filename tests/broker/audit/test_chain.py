"""The chain proves itself: what was changed, removed, moved, inserted or cut off shows."""

import pytest

from broker.audit.test_log import written
from thingctl_broker.audit import log as module
from thingctl_broker.audit.chain import AUDIT_FILE, Broken, Verified, files, verify


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "GATHER", 0.0)


def test_every_changed_removed_moved_or_inserted_line_is_found(tmp_path):
    written(tmp_path, 4)
    path = tmp_path / AUDIT_FILE
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 8
    forged = []
    for i in range(len(lines)):
        changed = lines[i].replace(b"2025", b"2024").replace(b'"seal":"', b'"seal":"0')
        if i < len(lines) - 1:
            forged.append([*lines[:i], changed, *lines[i + 1 :]])
        if i < len(lines) - 2:  # the last record and its seal together are the end: see below
            forged.append(lines[:i] + lines[i + 1 :])
            forged.append(lines[: i // 2 * 2] + lines[i // 2 * 2 + 2 :])  # a record with its seal
            forged.append([*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]])
        forged.append([*lines[:i], b'{"at":"","event":"x"}\n', *lines[i:]])
    forged.append([b"x\n", *lines])
    for lines in forged:
        if b"".join(lines) != whole:
            path.write_bytes(b"".join(lines))
            assert isinstance(verify(files(tmp_path)), Broken), lines
    path.write_bytes(whole)
    assert isinstance(verify(files(tmp_path)), Verified)


def test_a_cut_end_shows_against_a_noted_seal(tmp_path):
    written(tmp_path, 3)
    noted = verify(files(tmp_path)).last_seal
    path = tmp_path / AUDIT_FILE
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    assert isinstance(verify(files(tmp_path)), Verified)
    assert "cut off" in verify(files(tmp_path), noted).fault
    path.unlink()
    assert "cut off" in verify(files(tmp_path), noted).fault
