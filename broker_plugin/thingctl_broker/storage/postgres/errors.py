"""What can go wrong with PostgreSQL, as what it means for whoever asked.

Whether something was done all the same is known in every case but one: the connection
was lost between the statement and its answer. That case alone is ``uncertain``.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

import asyncpg

from thingctl_broker.cluster.store_port import StoreDown

_ERRNO: Final = re.compile(r"^\[Errno -?\d+\] ")

AGAIN: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
)
"""Undone because of others; the same again may well succeed."""

_LOST: Final = (
    asyncpg.AdminShutdownError,  # 57P01; it may come in the place of the answer to a commit
    asyncpg.CrashShutdownError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InternalClientError,
    EOFError,
)

_REFUSED: Final = (
    (asyncpg.ReadOnlySQLTransactionError, "the store takes no writes at present (it is read-only)"),
    (asyncpg.DiskFullError, "the store's disk is full"),
    (asyncpg.TooManyConnectionsError, "the store has no connection left for this worker"),
    (asyncpg.CannotConnectNowError, "the store is starting or ending"),
    (asyncpg.QueryCanceledError, "the store took too long"),
    (asyncpg.InsufficientResourcesError, "the store has run out of something it needs"),
    (asyncpg.OperatorInterventionError, "the store is being worked on"),
    (asyncpg.InvalidAuthorizationSpecificationError, "the store does not let this worker in"),
    (asyncpg.InvalidCatalogNameError, "the store's database does not exist"),
    (asyncpg.InsufficientPrivilegeError, "the store's user may not do that"),
    (asyncpg.UndefinedTableError, "the store's tables are not there"),
    (asyncpg.InvalidSchemaNameError, "the store's tables are not there"),
    (asyncpg.PostgresSystemError, "the store's machine is at fault"),
)


def is_lost(error: BaseException) -> bool:
    """Whether the connection went away under a statement: what became of it is unknown."""
    if isinstance(error, asyncpg.CannotConnectNowError):
        return False
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, asyncpg.DataError)
    return isinstance(error, (*_LOST, TimeoutError, OSError))


def refusal(error: BaseException) -> StoreDown | None:
    """What a server's error means when it stands for the store as a whole; None: for this statement only."""
    for kind, text in _REFUSED:
        if isinstance(error, kind):
            return StoreDown(f"{text}: {_first_line(error)}")
    return None


def unreachable(error: BaseException) -> StoreDown:
    """There is no connection to be had."""
    known = refusal(error)
    if known is not None:
        return known
    if isinstance(error, TimeoutError):
        return StoreDown("the store cannot be reached: it does not answer")
    if isinstance(error, ssl.SSLError):
        return StoreDown(f"the store cannot be reached by TLS: {error.reason or 'it failed'}")
    if isinstance(error, FileNotFoundError | PermissionError):  # ssl does not say which file it is
        return StoreDown(
            f"the store cannot be reached: a file that its URL names cannot be read: {error.strerror}"
        )
    if isinstance(error, OSError | asyncpg.PostgresError):
        return StoreDown(f"the store cannot be reached: {_ERRNO.sub('', _first_line(error))}")
    if isinstance(error, asyncpg.ClientConfigurationError) and "root certificate" in str(error):
        return StoreDown(
            "the store cannot be reached: whom to trust? With sslmode verify-ca and verify-full the URL "
            "needs sslrootcert=FILE"
        )
    if not isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | ValueError):
        raise error  # a fault of ours
    # Errors of the client library may quote the URL, and with it a password.
    return StoreDown(f"the store cannot be reached ({type(error).__name__})")


def unknown_fate() -> StoreDown:
    """The connection was lost during a commit, and the store could not be asked about it."""
    return StoreDown(
        "the connection to the store was lost; whether that was done is not known", uncertain=True
    )


def _first_line(error: BaseException) -> str:
    return " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
