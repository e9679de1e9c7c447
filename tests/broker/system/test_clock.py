"""The machine's clocks are what the port asks for."""

import time

from thingctl_broker.system.clock import SystemClock


def test_deadlines_use_the_clock_that_never_jumps_and_display_the_other():
    clock = SystemClock()
    assert abs(clock.monotonic() - time.monotonic()) < 5
    assert abs(clock.unix() - time.time()) < 5
    assert clock.monotonic() <= clock.monotonic()
