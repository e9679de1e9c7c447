"""API tokens that all workers share: each has them in memory and hears of changes.

A record each, so that two workers that make tokens at once do not write over one another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.ports import StoreDown
from thingctl_broker.credentials import ADMIN, CredentialsError, TokenStore, decode_token, encode_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.cluster.ports import Documents
    from thingctl_broker.credentials import Token

KIND: Final = "token"
"""Of the records; a record's name is the token's."""

LOOK_SECONDS: Final = 1.0
"""Between two looks for a token that is not known: nobody can make a worker ask all the time."""

_log = structlog.get_logger("thingctl.cluster")


class SharedTokens(TokenStore):
    """The tokens of all workers."""

    def __init__(
        self, documents: Documents, admin_token: str | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """``admin_token``: one that is given from outside, and stands in for any that is stored."""
        super().__init__({}, keep=self._write, now=now)
        self._documents = documents
        self._given = admin_token
        self._records: dict[str, bytes] = {}
        """As they are in the store, as far as is known."""
        self._looked = 0.0

    async def load(self) -> None:
        """Take in every token; the first worker of all makes the admin token.

        Raises :class:`~thingctl_broker.cluster.ports.StoreDown` or
        :class:`~thingctl_broker.credentials.CredentialsError`.
        """
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
            self._take(await self._read())
        except StoreDown:
            return False
        return True

    async def _read(self) -> dict[str, bytes]:
        return {name: record for _, name, record in await self._documents.load((KIND,))}

    def _take(self, records: dict[str, bytes]) -> None:
        if records == self._records and self._tokens:
            return
        tokens: dict[bytes, Token] = {}
        for name, record in records.items():
            if record == self._records.get(name):
                found = next((known for known in self._tokens.values() if known[1].name == name), None)
                if found is not None:
                    tokens[found[0]] = found[1]  # the same object: streams that it opened go on
                    continue
            try:
                digest, token = decode_token(record)
            except ValueError as error:
                _log.error("a token's record is damaged and was left alone", token=name, fault=str(error))
                continue
            tokens[digest] = token
        self.replace(tokens, self._given)
        self._records = records

    async def _write(self, tokens: dict[bytes, Token]) -> None:
        records = {token.name: encode_token(digest, token) for digest, token in tokens.items()}
        changed: list[tuple[str, str, bytes | None]] = [
            (KIND, name, record) for name, record in records.items() if record != self._records.get(name)
        ]
        changed += [(KIND, name, None) for name in self._records if name not in records]
        try:
            # One that is added must not take the place of another worker's of the same name.
            new = len(changed) == 1 and changed[0][1] not in self._records and changed[0][2] is not None
            if not await self._documents.put(changed, new=new):
                self._take(await self._read())
                raise CredentialsError(f"there is a token named {changed[0][1]!r} already")
        except StoreDown as error:
            raise CredentialsError(error.text) from error
        self._records = records
