"""What a worker's link costs: the program runs, and tells of each contender."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import link as bench

BENCH = Path(bench.__file__)


def test_each_contender_makes_its_round_trips(mosquitto_port):
    done = subprocess.run(
        [sys.executable, BENCH, "--trips", "200", "--repeats", "1", "--window", "8"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+?) \| [\d.]+ \| ([\d.]+) \| [\d,]+ \|$", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == list(bench.CONTENDERS.values())
    assert rows[-1][1] == "1.00"
