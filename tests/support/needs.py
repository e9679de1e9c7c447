"""What a test needs of the machine: without it the test is skipped at home, and fails in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(why: str) -> NoReturn:
    """Skip the test at home; fail it in CI, where everything has to run."""
    if os.environ.get("CI"):
        pytest.fail(f"{why}, and CI has to run this test")
    pytest.skip(why)
