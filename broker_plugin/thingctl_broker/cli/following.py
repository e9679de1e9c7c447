"""Waiting for the end of an execution, or of a command to many things."""

from __future__ import annotations

import sys
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from thingctl_broker.cli import output
from thingctl_broker.cli.client import ProxyFailure
from thingctl_broker.cli.display import Display
from thingctl_broker.cli.exits import Failure
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable

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
    display.show_changes(execution)
    wait = SHORTEST
    while execution["status"] not in TERMINAL:
        try:
            latest = _ask(partial(client.execution, execution["executionId"], wait), display)
        except Failure as failure:
            raise Failure(failure.code, f"{failure.text}; {_still(execution)}") from None
        wait = SHORTEST if latest != execution else min(wait * 1.5, LONGEST)
        execution.update(latest)
        display.show_changes(latest)
    return execution


def _ask(ask: Callable[[], Json], display: Display) -> Json:
    """Ask the broker; again while a proxy answers, for ``PROXY_PATIENCE``."""
    give_up_at = None
    while True:
        try:
            return ask()
        except ProxyFailure as failure:
            if give_up_at is None:
                give_up_at = monotonic() + PROXY_PATIENCE
                display.print_line(f"{failure.text}; asking again")
            if monotonic() >= give_up_at:
                raise
        sleep(PROXY_PAUSE)


def follow_group(client: ApiClient, group: Json) -> Json:
    """Show how far a command to many things comes until it has ended everywhere; return the group.

    A command that has stopped after too many failures has ended, too, when nothing of it runs any more.
    Raises as :func:`follow`.
    """
    display = Display()
    command_id = str(group.get("commandId"))
    still = f"thingctl groups watch {output.clean(command_id)}"
    try:
        while is_under_way(group):
            display.show_changes(_as_progress(group))
            sleep(SHORTEST)
            try:
                group = _ask(partial(client.group, command_id), display)
            except Failure as failure:
                raise Failure(failure.code, f"{failure.text}; to go on: {still}") from None
    except KeyboardInterrupt:
        display.close()
        print(f"still {output.clean(group.get('state'))}: {still}", file=sys.stderr)
        raise
    finally:
        display.close()
    return group


def is_under_way(group: Json) -> bool:
    """Whether a command to many things has yet to reach a thing, or runs on one."""
    statuses = group.get("statuses") or {}
    return group.get("state") in {"RUNNING", "PAUSED"} or any(status not in TERMINAL for status in statuses)


def _as_progress(group: Json) -> Json:
    ended, targeted = group.get("ended"), group.get("targeted")
    progress = {"percent": group.get("percent"), "message": f"{ended} of {targeted} ended"}
    return {"status": "IN_PROGRESS", "progress": progress}


def _still(execution: Json) -> str:
    status, execution_id = map(output.clean, (execution["status"], execution["executionId"]))
    return f"still {status}: thingctl watch {execution_id}"
