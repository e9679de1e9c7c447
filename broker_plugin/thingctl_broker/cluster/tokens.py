"""API tokens that all workers share: each has them in memory and hears of changes.

A record each, so that two workers that make tokens at once do not write over one another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from thingctl_broker.cluster.store_ports import StoreDown
from thingctl_broker.credentials import ADMIN, CredentialsError, TokenExists
from thingctl_broker.token_file import decode_token, encode_token
from thingctl_broker.token_store import TokenStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.cluster.store_ports import Documents
    from thingctl_broker.credentials import Token

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
        super().__init__({}, keep=self._write, now=now)
        self._documents = documents
        self._given = admin_token
        self._stored: dict[str, _Stored] = {}
        """What is in the store, as far as is known, by name; without what is damaged."""
        self._damaged: dict[str, bytes] = {}
        self._looked = 0.0

    async def load(self) -> None:
        """Take in every token; the first worker of all makes the admin token.

        Raises :class:`~thingctl_broker.cluster.store_ports.StoreDown` or
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
        """Know what is in the store; what this worker has changed and not yet written stands."""
        mine, unwritten = self._mine(), self._unwritten()
        stored = dict(filter(None, map(self._decoded, records.items())))
        self._damaged = {name: record for name, record in records.items() if name not in stored}
        tokens = {name: one.token for name, one in stored.items()}
        for name, token in mine.items():
            # The same object where nothing has changed: streams that it opened go on.
            if tokens.get(name) == token or name in unwritten:
                tokens[name] = token
        for name, changed in unwritten.items():
            if changed is None:
                tokens.pop(name, None)
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
        """The tokens that are or are to be in the store, with their digests, by name."""
        known = self._displaced | {d: token for d, token in self._tokens.values() if d != self._stand_in}
        return {token.name: (digest, token) for digest, token in known.items()}

    def _unwritten(self) -> dict[str, tuple[bytes, Token] | None]:
        """What this worker has changed and not yet written; None: removed."""
        mine = self._mine()
        before = {name: stored.token for name, stored in self._stored.items()}
        return {
            name: mine.get(name)
            for name in sorted(mine.keys() | before.keys())
            if mine.get(name) != before.get(name)
        }

    async def _write(self, tokens: dict[bytes, Token]) -> None:  # noqa: ARG002 what has changed of them
        try:
            while changed := self._unwritten():
                records: list[tuple[str, str, bytes | None]] = [
                    (KIND, name, None if token is None else encode_token(*token))
                    for name, token in changed.items()
                ]
                before = [self._stored[name].record if name in self._stored else None for name in changed]
                if await self._documents.put(records, instead_of=before):
                    for _, name, record in records:
                        token = changed[name]
                        if record is None or token is None:
                            self._stored.pop(name, None)
                        else:
                            self._stored[name] = _Stored(record, token)
                    return
                # Another worker has changed one of them meanwhile.
                found = await self._read()
                taken = [name for name, token in changed.items() if self._is_taken(name, token, found)]
                self._tokens = {
                    head: known for head, known in self._tokens.items() if known[1].name not in taken
                }
                for name in taken:
                    self._stored.pop(name, None)
                self._take(found)
                if taken:
                    raise TokenExists(f"there is a token named {taken[0]!r} already")
        except StoreDown as error:
            raise CredentialsError(error.text) from error

    def _is_taken(self, name: str, changed: tuple[bytes, Token] | None, found: dict[str, bytes]) -> bool:
        """Whether another worker has made a token of this name, or used up the code of this session."""
        if changed is None:
            return False
        if name not in self._stored:
            return name in found
        return bool(changed[1].made_with) and found.get(name) != self._stored[name].record
