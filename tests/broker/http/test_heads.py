"""Which heads ask for nothing special, and that the others are told apart."""

from __future__ import annotations

import pytest

from thingctl_broker.http.bodies import BODY_MAX
from thingctl_broker.http.heads import Head, read_head

URL = b"/x"
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: Bearer t\r\nContent-Length: 5\r\n\r\n"
HEADERS = [(b"host", b"a"), (b"authorization", b"Bearer t"), (b"content-length", b"5")]


def with_header(line):
    return HEAD.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


def test_a_head_is_its_headers_and_the_length_of_the_body():
    assert read_head(HEAD, URL) == Head(HEADERS, 5)


@pytest.mark.parametrize(
    "line",
    [
        b"User-Agent: x",
        b"Accept: */*",
        b"Content-Type: application/json",
        b"Connection: Keep-Alive",
    ],
)
def test_what_makes_no_difference_is_let_pass(line):
    head = read_head(with_header(line), URL)
    assert head is not None
    assert (head.length, len(head.headers)) == (5, 4)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        HEAD[:-2],
        HEAD + b"12345",
        HEAD.replace(b"POST", b"PUT"),
        HEAD.replace(b"/x", b"/x?y"),
        HEAD.replace(b"/x", b"/X"),
        HEAD.replace(b"1.1", b"1.0"),
        with_header(b"Connection: keep-alive").replace(b"1.1", b"1.0"),
        HEAD.replace(b"Host: a", b"Host: a\n"),
        HEAD.replace(b"Host: a\r\n", b""),
        HEAD.replace(b"AUTHORIZATION: Bearer t\r\n", b""),
        HEAD.replace(b"Content-Length: 5\r\n", b""),
        HEAD.replace(b": 5", b": 0"),
        HEAD.replace(b": 5", b": -5"),
        HEAD.replace(b": 5", b": 5, 5"),
        HEAD.replace(b": 5", b": %d" % (BODY_MAX + 1)),
        *map(
            with_header,
            [
                b"Content-Length: 5",
                b"Authorization: Bearer t",
                b"Host: b",
                b"Transfer-Encoding: chunked",
                b"Connection: close",
                b"Connection: upgrade\r\nUpgrade: websocket",
                b"Expect: 100-continue",
                b"Content-Type: text/plain",
                b"Content-Encoding: gzip",
                b"Idempotency-Key: k",
                b"X-Whatever: y",
                b"not a header",
                b"User-Agent: a\r\n b",
                b"Bad\x00: y",
            ],
        ),
    ],
)
def test_whatever_may_make_a_difference_is_none_of_them(head):
    assert read_head(head, URL) is None
