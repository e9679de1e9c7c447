"""How often something was asked of the database, and what may have been done without being told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingctl_broker.executions import Execution


class Tries:
    """How often a batch was asked: again when its answer was lost, and what it did then is to be told now."""

    def __init__(self) -> None:
        self.count = 0
        self._began = time.monotonic()

    def another(self) -> None:
        """It is asked, perhaps once more."""
        self.count += 1

    def may_have_ended(self, execution: Execution, now: float) -> bool:
        """Whether it was this batch that ended the execution. ``now``: the database's time.

        Somebody else may have, in the same moment; better an end told twice than never.
        """
        if self.count < 2 or execution.ended_at is None:
            return False
        return execution.ended_at >= now - (time.monotonic() - self._began)
