"""What a forked child gives up."""

from __future__ import annotations

import os

import pytest

from thingctl_agent.runtime import forks


def in_child(check):
    pid = os.fork()
    if not pid:
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_calls_what_was_registered_and_the_parent_does_not():
    heard = []

    def fails():
        raise OSError

    with forks.given_up(fails, lambda: heard.append(1)):
        assert in_child(lambda: heard == [1])
        assert heard == []
    assert in_child(lambda: heard == [])
