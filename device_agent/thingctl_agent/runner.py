"""One call of one handler: whatever it does, an outcome comes back.

Runs in a worker thread or on the workers' event loop, never on the network thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingctl_agent import outcome
from thingctl_agent.errors import Canceled, CommandFailed, Reject
from thingctl_agent.registry import InvalidParamsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_agent.context import Context
    from thingctl_agent.registry import Action

    OnError = Callable[[BaseException], None]


def run(action: Action, params: bytes, context: Context, on_error: OnError) -> outcome.Outcome:
    """Call a sync handler. ``on_error`` gets each exception that the operator is not shown."""
    try:
        return outcome.succeeded(action.function(**action.arguments(action.decode(params), context)))
    except BaseException as error:
        return verdict(error, context, on_error)


async def run_async(action: Action, params: bytes, context: Context, on_error: OnError) -> outcome.Outcome:
    """Await an async handler; as :func:`run`."""
    try:
        return outcome.succeeded(await action.function(**action.arguments(action.decode(params), context)))
    except BaseException as error:
        return verdict(error, context, on_error)


def verdict(error: BaseException, context: Context, on_error: OnError) -> outcome.Outcome:
    """What an exception out of a handler means.

    Only what :class:`Reject` and :class:`CommandFailed` carry is shown to the operator:
    any other exception may hold secrets, so its text stays in the device's log.
    """
    if isinstance(error, Reject):
        return outcome.rejected(str(error.code), str(error.text))
    if isinstance(error, CommandFailed):
        on_error(error)
        return outcome.failed(str(error.code), str(error.text), error.details)
    if isinstance(error, InvalidParamsError):
        return outcome.rejected(outcome.INVALID_PARAMS, f"{error.text} at {error.pointer or 'the params'}")
    if isinstance(error, Canceled) or (context.canceled and type(error).__name__ == "CancelledError"):
        return outcome.canceled("the handler stopped when it was asked to")
    on_error(error)
    return outcome.failed(
        outcome.HANDLER_ERROR, "the handler raised an exception; the log of the device has it"
    )


def never_begun() -> outcome.Outcome:
    """A task that was cancelled before its handler ran."""
    return outcome.canceled("it had not begun")
