"""What the service refuses, and whose fault it is. Adapters turn these into their own words."""

from __future__ import annotations


class ServiceError(Exception):
    """A use case could not be carried out. ``text`` is one sentence for people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class InvalidCommand(ServiceError):
    """The caller's command is wrong. ``pointer``: an RFC 6901 pointer to the fault."""

    def __init__(self, text: str, pointer: str = "") -> None:
        super().__init__(text)
        self.pointer = pointer


class UnknownThing(ServiceError):
    """No thing has that name."""


class UnknownExecution(ServiceError):
    """No execution has that id (or it has left the table)."""


def unknown_execution(execution_id: str) -> UnknownExecution:
    """One that is not there, or that the caller may not see: in the same words, so that nobody can tell."""
    return UnknownExecution(f"no execution has the id {execution_id!r}, or it ended long ago")


class AlreadyEnded(ServiceError):
    """The execution has a terminal status, which never changes."""


class QueueFull(ServiceError):
    """Too many requests wait for one thing. ``retry_after``: seconds until it may be worth trying."""

    def __init__(self, text: str, retry_after: int) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class IdempotencyConflict(ServiceError):
    """The idempotency key was used for another command."""


class NotAccepting(ServiceError):
    """New executions cannot be kept at present (the disk is full, say). ``retry_after``: seconds."""

    def __init__(self, text: str, retry_after: int) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class TableFull(ServiceError):
    """The table holds as many executions as it may, and all of them are live."""


class UnknownCommand(ServiceError):
    """No command to many things has that id."""


def unknown_command() -> UnknownCommand:
    """Return the error for a missing command and for one that the caller must not see: the same words."""
    return UnknownCommand("no command to many things has that id, or it was long ago")


class WrongMove(ServiceError):
    """A command to many things cannot be paused, resumed or canceled as it stands."""


class ThingDisabled(ServiceError):
    """The thing is switched off: it takes no commands."""


class ThingExists(ServiceError):
    """A thing of that name is there already."""


class InvalidThing(ServiceError):
    """What is said of a thing or a thing type is wrong. ``pointer``: an RFC 6901 pointer to the fault."""

    def __init__(self, text: str, pointer: str = "") -> None:
        super().__init__(text)
        self.pointer = pointer


class UnknownThingType(ServiceError):
    """No thing type has that name."""


class TypeInUse(ServiceError):
    """Things are of that type."""


class NotKept(ServiceError):
    """A change to things or tokens could not be written to the disk, and was not made."""


class UnknownClient(ServiceError):
    """No MQTT client has that id, and no session."""


class ClientAway(ServiceError):
    """The MQTT client is not connected."""


class NoDeviceUrl(ServiceError):
    """No address is known at which a device on another machine reaches the broker."""


class ConfigurationError(Exception):
    """The settings do not make a broker; the text says which and why."""
