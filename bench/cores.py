"""Which process runs where: whatever is measured on one core, whatever loads it on others."""

from __future__ import annotations

import os
from typing import NamedTuple


class Cores(NamedTuple):
    """The cores of each role. With two cores, the fleet and the controller share one."""

    server: frozenset[int]
    fleet: frozenset[int]
    controller: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether the server shares its core with nothing of ours."""
        return not self.server & (self.fleet | self.controller)


def plan_cores(available: frozenset[int] | None = None) -> Cores:
    """Give the server one core of its own, and the load the others.

    Every server process of a peer (a broker and its tracker) shares the one server core:
    figures are per core.
    """
    cores = sorted(os.sched_getaffinity(0) if available is None else available)
    server = frozenset(cores[:1])
    fleet = frozenset(cores[1:2]) or server
    controller = frozenset(cores[2:3]) or fleet
    return Cores(server, fleet, controller)
