"""What a handler raises to end its execution, and what the agent raises at its owner."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reject(Exception):
    """Refuse the command: nothing was done. The execution ends REJECTED.

    ``code``: a word for programs (``reasonCode``). ``text``: a sentence for people.
    """

    code: str = "REJECTED"
    """Of a subclass that does not call ``super().__init__``."""
    text: str = ""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text or code)
        self.code = code
        self.text = text


class CommandFailed(Exception):
    """The command was tried and could not be done. The execution ends FAILED.

    >>> raise CommandFailed("the bolt is jammed", code="JAMMED", position=3)
    Traceback (most recent call last):
    thingctl_agent.errors.CommandFailed: the bolt is jammed

    ``text`` and ``code`` become the reason; ``details``, if any, the result. Unlike
    any other exception, all of it is shown to the operator.
    """

    code: str = "FAILED"
    """Of a subclass that does not call ``super().__init__``."""
    text: str = ""
    details: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, text: str = "", *, code: str = "FAILED", **details: Any) -> None:
        super().__init__(text or code)
        self.code = code
        self.text = text
        self.details = details


class Canceled(BaseException):
    """Raised by ``ctx.check()`` and ``ctx.run()`` when the execution is to stop.

    Not an ``Exception``: a handler's ``except Exception`` must not swallow it.
    """


class AgentError(Exception):
    """What the agent's owner has to mend."""


class RegistrationError(AgentError):
    """A function that cannot become an action: its name is taken or its signature unclear."""


class ConfigError(AgentError):
    """A setting that is missing, unknown or out of bounds."""


class JournalError(AgentError):
    """The journal cannot be opened: its directory is missing, not writable or in use."""
