"""What a newcomer sees: the demonstration, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from urllib.request import Request, urlopen

import pytest

from support.processes import ROOT, output, process, until_said

pytestmark = pytest.mark.system


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_make_run_shows_the_main_job_and_ends_cleanly(number):
    with process(sys.executable, ROOT / "examples" / "main_job.py") as demonstration:
        said = until_said(demonstration, "curl -H")
        base, code = re.search(r"(http://\S+/)#sign-in=(\S+)", said).groups()
        body = json.dumps({"code": code}).encode()
        with urlopen(
            Request(f"{base}api/v1/sign-in", body, {"Content-Type": "application/json"})
        ) as signed_in:
            assert json.load(signed_in)["scopes"] == ["admin"]
        began = time.monotonic()
        demonstration.send_signal(number)
        assert demonstration.wait(10) == 0
        took = time.monotonic() - began
        said = output(demonstration)
    assert "setTemperature: SENT" in said
    assert "setTemperature: SUCCEEDED" in said
    assert '{"currentTemperature": 24.0}' in said
    assert "Traceback" not in said
    assert took < 2, f"{took:.1f} s"


def test_make_run_is_the_demonstration():
    """The Makefile's target runs the script that the test above has seen."""
    recipe = (ROOT / "Makefile").read_text()
    assert "run: $(RUN_STAMP)" in recipe
    assert "examples/main_job.py" in recipe
    light = recipe.partition("$(RUN_STAMP): pyproject.toml")[2].partition("\n\n")[0]
    assert "-e '.[broker]'" in light, "the demonstration needs no more"
