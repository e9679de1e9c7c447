"""Passwords of things: made, hashed with argon2id, verified; never in the loop.

The costs are OWASP's least for argon2id (19 MiB, two passes, one lane), about 20 ms. The
passwords made here have 192 random bits, so the costs guard those that operators choose.

A password that was right is remembered as a keyed digest while the process lives: when
ten thousand devices come back together, only their first sign-in after a restart is dear.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from thingctl_broker.failures import FailureLimit

PASSWORD_MIN: Final = 16
"""Characters of a password that an operator chooses."""

PASSWORD_MAX: Final = 1024
"""Bytes of any password."""

WAITING_MAX: Final = 2000
"""Verifications that wait for a thread. More are refused; the client tries again."""

THREADS: Final = 2

REMEMBERED_MAX: Final = 100_000
"""Things whose right password is remembered."""

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class TooManyFailures(Exception):
    """Too many wrong ones have come from there: it has to wait before its next try."""


class Busy(Exception):
    """Too many verifications wait."""


def make_password() -> str:
    """Return a new password with 192 random bits."""
    return secrets.token_urlsafe(24)


class Passwords:
    """Hashes and verifies in threads of its own."""

    def __init__(self, limit: FailureLimit | None = None) -> None:
        self._limit = FailureLimit() if limit is None else limit
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._turn = asyncio.Semaphore(THREADS)
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._nobodys: str | None = None

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to be kept of a password."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _HASHER.hash, password)

    def remembers(self, name: str, password_hash: str, password: bytes) -> bool:
        """Whether this very password was right for this very hash before. Takes microseconds."""
        known = self._remembered.get(name)
        return (
            known is not None
            and known[0] == password_hash
            and hmac.compare_digest(known[1], self._digest(password))
        )

    async def verify(self, name: str, password_hash: str, password: bytes, address: str) -> bool:
        """Whether the password is right; an empty hash has none that is.

        Takes as long for a thing that is not there. Raises :class:`TooManyFailures` and
        :class:`Busy`.
        """
        loop = asyncio.get_running_loop()
        if not self._limit.allows(address, name, loop.time()):
            raise TooManyFailures
        if self._waiting >= WAITING_MAX:
            raise Busy
        self._waiting += 1
        try:
            async with self._turn:
                # Many may have come at once: those behind the ones that failed are not tried.
                if not self._limit.allows(address, name, loop.time()):
                    raise TooManyFailures
                if not password_hash and self._nobodys is None:
                    self._nobodys = await self.hash(make_password())
                against = password_hash or self._nobodys or ""
                right = await loop.run_in_executor(self._threads, _matches, against, password)
        finally:
            self._waiting -= 1
        if not (right and password_hash):
            self._limit.failed(address, name, loop.time())
            return False
        self._remembered[name] = (password_hash, self._digest(password))
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return True

    def _digest(self, password: bytes) -> bytes:
        return hmac.digest(self._key, password, hashlib.sha256)


def _matches(password_hash: str, password: bytes) -> bool:
    if len(password) > PASSWORD_MAX:
        return False
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
