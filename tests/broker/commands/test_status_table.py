"""One row a status; everything that shows or counts statuses reads it."""

import re

import pytest

from thingctl_broker.cli.help import EXIT_CODES
from thingctl_broker.commands.status_table import FAILURES, STATUS_TABLE, VERDICTS, for_console
from thingctl_broker.http.console import FOLDER, load
from thingctl_protocol.statuses import DEVICE_STATUSES, TERMINAL, Status


def test_each_status_has_a_row_in_the_order_of_its_life():
    assert list(STATUS_TABLE) == list(Status)


def test_ends_have_exit_codes_and_a_severity_of_their_own():
    for column in ("exit_code", "severity"):
        found = [getattr(STATUS_TABLE[status], column) for status in TERMINAL]
        assert len(set(found)) == len(TERMINAL)
    for status in set(Status) - TERMINAL:
        assert (STATUS_TABLE[status].exit_code, STATUS_TABLE[status].severity) == (1, 0)


def test_scripts_may_rely_on_the_exit_codes():
    codes = {str(status): STATUS_TABLE[status].exit_code for status in TERMINAL}
    assert codes == {"SUCCEEDED": 0, "FAILED": 10, "REJECTED": 11, "TIMED_OUT": 12, "CANCELED": 13}
    assert EXIT_CODES["10 11 12 13"] == "The execution ended FAILED, REJECTED, TIMED_OUT, CANCELED."


def test_failures_and_verdicts_are_ends():
    assert FAILURES < TERMINAL
    assert VERDICTS < TERMINAL & DEVICE_STATUSES
    assert Status.SUCCEEDED not in FAILURES


def test_the_console_is_served_the_table():
    (file,) = (file for path, file in load(FOLDER).items() if path.endswith("/statuses.js"))
    assert b'{"status":"TIMED_OUT","word":"Timed out"' in file.body
    assert b"{{" not in file.body
    assert [row["status"] for row in for_console()] == list(Status)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("variable", ["--is", "--fill"])
def test_the_style_sheet_has_a_colour_for_each(status, variable):
    style = (FOLDER / "console.css").read_text(encoding="utf-8")
    assert len(re.findall(rf'\[data-status="{status}"\] {{ {variable}: ', style)) == 1
