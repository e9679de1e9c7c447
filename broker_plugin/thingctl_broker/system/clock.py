"""The machine's clocks, as the service's port wants them."""

from __future__ import annotations

import time


class SystemClock:
    """The clock of this machine."""

    monotonic = staticmethod(time.monotonic)
    unix = staticmethod(time.time)
