"""One call of one handler: whatever it does, an outcome comes back.

Runs in a worker thread or on the workers' event loop, never on the network thread.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from thingctl_agent.core import outcome
from thingctl_agent.core.recovery import interrupted
from thingctl_agent.errors import Canceled, CommandFailed, Reject
from thingctl_agent.handlers.registry import InvalidParamsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thingctl_agent.handlers.context import Context
    from thingctl_agent.handlers.registry import Action

    OnError = Callable[[BaseException], None]


def run(
    action: Action, params: bytes, context: Context, on_error: OnError
) -> outcome.CallOutcome | Awaitable[Any]:
    """Call a sync handler. ``on_error`` gets each exception that the operator is not shown.

    Returns the awaitable that a wrapped async handler returns; it is to be awaited on the loop.
    """
    try:
        value = call(action, params, context)
        return value if is_awaitable(value) else outcome.succeeded(value)
    except BaseException as error:
        return verdict(error, context, on_error)


async def run_async(made: Callable[[], Any], context: Context, on_error: OnError) -> outcome.CallOutcome:
    """Await what ``made`` returns, and what that returns if it is awaitable; as :func:`run`."""
    try:
        value = made()
        for _ in range(2):
            value = (await value) if is_awaitable(value) else value
        return outcome.succeeded(value)
    except BaseException as error:
        return verdict(error, context, on_error)


def call(action: Action, params: bytes, context: Context) -> Any:
    """What the handler returns; raises what it raises."""
    return action.function(**action.arguments(action.decode(params), context))


def is_awaitable(value: Any) -> bool:
    """Whether ``await value`` may work. No ``inspect``: see :mod:`~thingctl_agent.handlers.signature`."""
    return hasattr(type(value), "__await__")


def verdict(error: BaseException, context: Context, on_error: OnError) -> outcome.CallOutcome:
    """The outcome of a call whose handler raised ``error``; never raises.

    Only what :class:`Reject` and :class:`CommandFailed` carry is shown to the operator:
    any other exception may hold secrets, so its text stays in the device's log.
    """
    try:
        return _verdict(error, context, on_error)
    except BaseException:  # a property or __str__ of the handler's exception class
        with contextlib.suppress(BaseException):
            on_error(error)
        return outcome.handler_error()


def _verdict(error: BaseException, context: Context, on_error: OnError) -> outcome.CallOutcome:
    if isinstance(error, Reject):
        return outcome.rejected(str(error.code), str(error.text))
    if isinstance(error, CommandFailed):
        shown = outcome.failed(str(error.code), str(error.text), dict(error.details))
        on_error(error)
        return shown
    if isinstance(error, InvalidParamsError):
        return outcome.rejected(outcome.INVALID_PARAMS, f"{error.text} at {error.pointer or 'the params'}")
    if isinstance(error, Canceled) or (context.canceled and type(error).__name__ == "CancelledError"):
        return outcome.canceled("the handler stopped when it was asked to")
    on_error(error)
    return outcome.handler_error()


def never_run(*, begun: bool) -> outcome.CallOutcome:
    """The outcome of a task that was cancelled before its first step. ``begun``: a wrapper ran before."""
    return outcome.canceled("the handler stopped when it was asked to" if begun else "it had not begun")


def not_started(attempt: int, error: Exception) -> outcome.CallOutcome:
    """The outcome of a call for which there was no thread, memory or descriptor."""
    if attempt > 1:
        return interrupted()
    return outcome.rejected(outcome.BUSY, f"the device cannot start the handler now: {error}")
