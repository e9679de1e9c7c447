"""API tokens that all workers share: each has them in memory and hears of changes.

A record each, so that two workers that make tokens at once do not write over one another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.security.token_file import decode_token, encode_token
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import ADMIN, CredentialsError, TokenExists

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.cluster.store_port import Documents
    from thingctl_broker.security.token_store import Swap
    from thingctl_broker.security.tokens import Token

KIND: Final = "token"
"""Of the records; a record's name is the token's."""

LOOK_SECONDS: Final = 1.0
"""Between two looks for a token that is not known: nobody can make a worker ask all the time."""

_log = structlog.get_logger("thingctl.cluster")


class _Stored(NamedTuple):
    record: bytes
    token: tuple[bytes, Token]
    """What the record says: the digest and the token."""


class SharedTokens(TokenStore):
    """The tokens of all workers."""

    def __init__(
        self, documents: Documents, admin_token: str | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """``admin_token``: one that is given from outside, and stands in for any that is stored."""
        super().__init__({}, now=now)
        self._documents = documents
        self._given = admin_token
        self._stored: dict[str, _Stored] = {}
        """What is in the store, as far as is known, by name; without what is damaged."""
        self._damaged: dict[str, bytes] = {}
        self._doubts: dict[str, tuple[bytes | None, bytes | None]] = {}
        """What may have been written though it was refused: what was there before, and what is there then."""
        self._looked = 0.0

    async def load(self) -> None:
        """Take in every token; the first worker of all makes the admin token.

        Raises :class:`~thingctl_broker.cluster.store_port.StoreDown` or
        :class:`~thingctl_broker.security.tokens.CredentialsError`.
        """
        async with self._writing:
            await self._settle()
            records = await self._read()
            if not records and self._given is None:
                store = TokenStore.open(None)
                (digest, admin) = store.first()
                record = encode_token(digest, admin)
                if await self._documents.put([(KIND, ADMIN, record)], new=True):
                    self.new_admin_token = store.new_admin_token
                records = await self._read()
            self._take(records)

    async def look_again(self, *, at_once: bool = False) -> bool:
        """Read anew what other workers may have written; at most once in ``LOOK_SECONDS``.

        ``at_once``: they have said that they have written.
        """
        now = time.monotonic()
        if not at_once:
            if now - self._looked < LOOK_SECONDS:
                return False
            self._looked = now
        try:
            async with self._writing:  # what is read while one is written would be older
                self._take(await self._read())
        except StoreDown:
            return False
        return True

    async def _read(self) -> dict[str, bytes]:
        return {name: record for _, name, record in await self._documents.load((KIND,))}

    def _take(self, records: dict[str, bytes]) -> None:
        """Know what is in the store."""
        mine = self._mine()
        stored = dict(filter(None, map(self._decoded, records.items())))
        self._damaged = {name: record for name, record in records.items() if name not in stored}
        tokens = {name: one.token for name, one in stored.items()}
        for name, token in mine.items():
            # The same object where nothing has changed: streams that it opened go on.
            if tokens.get(name) == token:
                tokens[name] = token
        self._stored = stored
        self.replace(dict(tokens.values()), self._given)

    def _decoded(self, item: tuple[str, bytes]) -> tuple[str, _Stored] | None:
        name, record = item
        try:
            return name, _Stored(record, decode_token(record))
        except ValueError as error:
            if record != self._damaged.get(name):
                _log.error("a token's record is damaged and was left alone", token=name, fault=str(error))
            return None

    def _mine(self) -> dict[str, tuple[bytes, Token]]:
        """The tokens that are in the store, with their digests, by name."""
        known = self._displaced | {d: token for d, token in self._tokens.values() if d != self._stand_in}
        return {token.name: (digest, token) for digest, token in known.items()}

    async def _keep(self, swap: Swap) -> bool:
        """Write one record; False: another worker has changed it, and that is known now."""
        if swap.before is not None and swap.before[0] == self._stand_in:
            return True  # it was never written
        try:
            await self._settle()
            return await self._write(swap)
        except StoreDown as error:
            raise CredentialsError(error.text) from error

    async def _write(self, swap: Swap) -> bool:
        name = swap.name
        if name in self._damaged:
            raise TokenExists(f"there is a token named {name!r} already, and its record is damaged")
        record = None if swap.after is None else encode_token(*swap.after)
        before = self._stored[name].record if name in self._stored else None
        try:
            is_done = await self._documents.put([(KIND, name, record)], instead_of=[before])
        except StoreDown as error:
            if error.uncertain:
                self._doubts[name] = (before, record)
            raise
        if not is_done:
            self._take(await self._read())
            return False
        if record is None or swap.after is None:
            self._stored.pop(name, None)
        else:
            self._stored[name] = _Stored(record, swap.after)
        return True

    async def _settle(self) -> None:
        """Undo what was refused because the store went away, and was written all the same."""
        for name, (before, written) in list(self._doubts.items()):
            await self._documents.put([(KIND, name, before)], instead_of=[written])
            del self._doubts[name]
            self._take(await self._read())
