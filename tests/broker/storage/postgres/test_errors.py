"""What a person reads when there is no connection to be had."""

from __future__ import annotations

import asyncpg
import pytest

from thingctl_broker.storage.postgres.errors import unreachable


async def fault_of(url):
    with pytest.raises((OSError, asyncpg.InterfaceError, asyncpg.PostgresError)) as raised:
        await asyncpg.connect(url, timeout=10)
    return unreachable(raised.value).text


async def test_whom_to_trust_must_be_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # nothing in ~/.postgresql
    text = await fault_of("postgresql://u:secret@127.0.0.1:1/d?sslmode=verify-full")
    assert "sslrootcert=FILE" in text
    assert "secret" not in text


async def test_a_certificate_that_is_not_there(tmp_path):
    text = await fault_of(f"postgresql://u@127.0.0.1:1/d?sslmode=verify-full&sslrootcert={tmp_path}/none")
    assert "a file that its URL names cannot be read: No such file or directory" in text


async def test_the_numbers_of_the_system_s_errors_are_left_out():
    text = await fault_of(f"postgresql://u@127.0.0.1:{1}/d")
    assert text.startswith("the store cannot be reached: ")
    assert "refused" in text.lower() or "Connect call failed" in text
    assert "Errno" not in text
