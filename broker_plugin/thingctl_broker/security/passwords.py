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
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from thingctl_broker.security.login_throttle import LoginThrottle

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def __init__(self, limit: LoginThrottle | None = None) -> None:
        self._limit = LoginThrottle() if limit is None else limit
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._turn = asyncio.Semaphore(THREADS)
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._nobodys: str | None = None

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to be kept of a password."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _HASHER.hash, password)

    def remembers(self, name: str, hashes: Sequence[str], password: bytes) -> str:
        """For which of the hashes this password was right before; empty: for none. Takes microseconds."""
        known = self._remembered.get(name)
        if known is None:
            return ""
        digest = self._digest(password)
        return next((one for one in hashes if hmac.compare_digest(known.get(one, b""), digest)), "")

    async def verify(self, name: str, hashes: Sequence[str], password: bytes, address: str) -> str:
        """For which of the hashes (two at most) the password is right; empty: for none.

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
                if not hashes and self._nobodys is None:
                    self._nobodys = await self.hash(make_password())
                against = hashes or (self._nobodys or "",)
                right = await loop.run_in_executor(self._threads, _matching, against, password)
        finally:
            self._waiting -= 1
        if right not in hashes:
            self._limit.failed(address, name, loop.time())
            return ""
        self._remember(name, hashes, right, password)
        return right

    def _remember(self, name: str, hashes: Sequence[str], right: str, password: bytes) -> None:
        known = self._remembered.get(name, {})
        self._remembered[name] = {one: known[one] for one in hashes if one in known} | {
            right: self._digest(password)
        }
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)

    def _digest(self, password: bytes) -> bytes:
        return hmac.digest(self._key, password, hashlib.sha256)


def _matching(hashes: Sequence[str], password: bytes) -> str:
    return next((one for one in hashes if _matches(one, password)), "")


def _matches(password_hash: str, password: bytes) -> bool:
    if len(password) > PASSWORD_MAX:
        return False
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
