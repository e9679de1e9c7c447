"""Files of a service are written whole, all or none."""

from __future__ import annotations

import os
import stat

import pytest

from thingctl_agent.setup.files import Placement, difference, put_all


def test_all_are_written_with_their_modes(tmp_path):
    put_all(tmp_path, [Placement("/etc/a", b"a", 0o640), Placement("/b", b"b", 0o644)])
    assert (tmp_path / "etc/a").read_bytes() == b"a"
    assert (tmp_path / "etc/a").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a", "b"]


@pytest.mark.parametrize("group", ["", "no-such-group-here"])
def test_when_one_cannot_be_written_none_is_replaced(tmp_path, group):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "file").touch()
    bad = Placement("/c" if group else "/file/b", b"b", 0o640, group)
    with pytest.raises((OSError, LookupError)):
        put_all(tmp_path, [Placement("/a", b"new", 0o644), bad])
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


def test_what_would_happen_is_known_before(tmp_path):
    placement = Placement("/a", b"a", 0o640)
    assert difference(tmp_path, placement) == "write"
    put_all(tmp_path, [placement])
    assert difference(tmp_path, placement) == ""
    assert difference(tmp_path, placement._replace(content=b"b")) == "replace"
    assert difference(tmp_path, placement._replace(mode=0o644)) == "replace"


def test_names_are_flushed_and_a_folder_that_cannot_be_is_no_fault(tmp_path, monkeypatch):
    flush, folders = os.fsync, []

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folders.append(descriptor)
            raise OSError(5, "Input/output error")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    put_all(
        tmp_path,
        [Placement("/a/x", b"1", 0o600), Placement("/a/y", b"2", 0o644), Placement("/b/z", b"3", 0o600)],
    )
    assert len(folders) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("?/*")} == {
        "x": b"1",
        "y": b"2",
        "z": b"3",
    }
