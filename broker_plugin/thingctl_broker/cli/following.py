"""Waiting for the end of an execution."""

from __future__ import annotations

import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from thingctl_broker.cli import output
from thingctl_broker.cli.client import ProxyFailure
from thingctl_broker.cli.display import Display
from thingctl_broker.cli.exits import Failure
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from thingctl_broker.cli.client import ApiClient, Json

SHORTEST: Final = 0.5
"""Seconds of one waiting request after something has happened."""

LONGEST: Final = 2.0
"""Seconds of one waiting request after a quiet time. The end of the execution ends the request anyway."""

PROXY_PATIENCE: Final = 60.0
"""Seconds for which a proxy may answer in the broker's place."""

PROXY_PAUSE: Final = 1.0
"""Seconds between two requests that a proxy answers."""


def follow(client: ApiClient, execution: Json) -> Json:
    """Show what happens to the execution until it ends; return it. Its TTL bounds the wait.

    Raises :class:`Failure` when the broker is gone, ``KeyboardInterrupt`` on Ctrl-C; both leave the
    execution as it is.
    """
    display = Display()
    try:
        return _follow(client, execution, display)
    except KeyboardInterrupt:
        display.close()
        print(_still(execution), file=sys.stderr)
        raise
    finally:
        display.close()


def _follow(client: ApiClient, execution: Json, display: Display) -> Json:
    display.show(execution)
    wait = SHORTEST
    while execution["status"] not in TERMINAL:
        try:
            latest = _ask(client, execution["executionId"], wait, display)
        except Failure as failure:
            raise Failure(failure.code, f"{failure.text}; {_still(execution)}") from None
        wait = SHORTEST if latest != execution else min(wait * 1.5, LONGEST)
        execution.update(latest)
        display.show(latest)
    return execution


def _ask(client: ApiClient, execution_id: str, wait: float, display: Display) -> Json:
    """Ask for the execution; again while a proxy answers, for ``PROXY_PATIENCE``."""
    give_up_at = None
    while True:
        try:
            return client.execution(execution_id, wait)
        except ProxyFailure as failure:
            if give_up_at is None:
                give_up_at = monotonic() + PROXY_PATIENCE
                display.say(f"{failure.text}; asking again")
            if monotonic() >= give_up_at:
                raise
        sleep(PROXY_PAUSE)


def _still(execution: Json) -> str:
    status, execution_id = map(output.clean, (execution["status"], execution["executionId"]))
    return f"still {status}: thingctl watch {execution_id}"
