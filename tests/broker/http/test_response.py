"""An answer's headers are the same in one piece and one by one."""

from __future__ import annotations

import pytest

from thingctl_broker.http.response import ApiResponse


@pytest.mark.parametrize(
    "answer",
    [
        ApiResponse(200, b"{}"),
        ApiResponse(201, b"{}", ((b"location", b"/x"), (b"connection", b"close"))),
        ApiResponse(400, b"", media_type=b"application/problem+json"),
        ApiResponse(204, b"", ((b"x", b"%b %d"),)),
    ],
)
def test_its_lines_are_its_headers(answer):
    assert answer.lines() == b"".join(name + b": " + value + b"\r\n" for name, value in answer.all_headers())
