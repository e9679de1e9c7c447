"""Nothing that happens to a log stream reaches its caller."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from thingctl_protocol.log_stream import PIECE, LogStream


@contextlib.contextmanager
def pipe():
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(write, "w") as writer:
        lines = LogStream(writer)
        try:
            yield reader, writer, lines
        finally:
            lines.close()


def test_a_line_is_written_and_a_surrogate_escaped():
    with pipe() as (reader, _, lines):
        lines.write("caf\udce9")
        assert os.read(reader.fileno(), 100) == b"caf\\udce9\n"


def test_a_pipe_that_nobody_reads_drops_lines_and_says_how_many():
    with pipe() as (reader, _, lines):
        begun = time.monotonic()
        for _ in range(3000):
            lines.write("x" * 100)
        assert time.monotonic() - begun < 2
        dropped = lines.dropped
        assert dropped > 1000
        os.set_blocking(reader.fileno(), False)
        read = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(reader.fileno(), 65536):
                read += piece
        lines.write("again")
        assert os.read(reader.fileno(), 1000).endswith(b"%d log lines were dropped\nagain\n" % dropped)
        assert lines.dropped == 0


def test_a_long_line_that_was_torn_is_followed_by_a_line_break():
    with pipe() as (reader, _, lines):
        lines.write("x" * 200_000)
        torn = os.read(reader.fileno(), 200_000)
        assert 0 < len(torn) < 200_000
        assert len(torn) % PIECE == 0
        lines.write("next")
        assert os.read(reader.fileno(), 1000) == b"\n1 log lines were dropped\nnext\n"


def test_a_reader_that_has_gone_and_a_full_disk_are_ignored():
    read, write = os.pipe()
    with os.fdopen(write, "w") as writer:
        lines = LogStream(writer)
        os.close(read)
        lines.write("x")
        assert lines.dropped == 1
        lines.close()
    with Path("/dev/full").open("w") as full:
        lines = LogStream(full)
        lines.write("x")
        assert lines.dropped == 1
        lines.close()


def test_no_stream_and_a_closed_one_are_ignored():
    LogStream(None).write("x")
    closed = io.StringIO()
    closed.close()
    LogStream(closed).write("x")
    latin = io.TextIOWrapper(io.BytesIO(), "ascii")
    LogStream(latin).write("é")


def test_closing_descriptor_2_does_not_send_the_log_elsewhere(tmp_path):
    code = """
import os, sys
from thingctl_protocol.log_stream import LogStream, keep_standard_descriptors
lines = LogStream(sys.stderr)
os.close(2); os.close(0); os.close(0 + 1)
keep_standard_descriptors()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    lines.write("here")
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "f"], stderr=subprocess.PIPE, check=True)
    assert done.stderr == b"here\n"
    assert (tmp_path / "f").read_text() == ""


def test_a_lock_that_is_never_released_stops_nobody():
    with pipe() as (_, _, lines):
        lines._lock.acquire()
        begun = time.monotonic()
        lines.write("x")
        assert time.monotonic() - begun < 2
        assert lines.dropped == 1
        lines._lock.release()


@pytest.mark.parametrize("threads", [4])
def test_lines_of_many_threads_are_whole(threads):
    with pipe() as (reader, _, lines):
        working = [
            threading.Thread(target=lambda: [lines.write("y" * 50) for _ in range(100)])
            for _ in range(threads)
        ]
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
        assert os.read(reader.fileno(), 65536).split(b"\n") == [b"y" * 50] * 100 * threads + [b""]
