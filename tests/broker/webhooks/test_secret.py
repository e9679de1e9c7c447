"""The secret of post-backs: made once, for nobody else to read."""

from __future__ import annotations

import pytest

from thingctl_broker.webhooks.secret import FILE, read_or_make


def test_made_once_and_kept(tmp_path):
    secret = read_or_make(tmp_path)
    assert len(secret) >= 32
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert read_or_make(tmp_path) == secret


def test_one_that_is_too_short_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"short\n")
    with pytest.raises(OSError, match="no secret"):
        read_or_make(tmp_path)
