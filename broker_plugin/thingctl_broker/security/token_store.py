"""The API tokens that there are: made, verified, given another secret, revoked at once.

Of each token its hash is known, never the token. A change is kept first and made then; what keeps
them is ``token_file``, or whatever else the store is made with.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.security import token_file
from thingctl_broker.security.sign_in import (
    CODE_LENGTH_MAX,
    SESSIONS_MAX,
    TooManySessions,
    UnknownCode,
    begun_session,
    digest_of_code,
    make_code,
    offered_session,
)
from thingctl_broker.security.tokens import (
    ADMIN,
    ADMIN_TOKEN,
    CredentialsError,
    InvalidToken,
    LastAdmin,
    ManagedElsewhere,
    TokenExists,
    UnknownToken,
    check_chosen,
    check_token,
    digest_of,
    make_token,
)
from thingctl_broker.system.paths import TOKENS_FILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from thingctl_broker.security.tokens import Token

    Keep = Callable[[dict[bytes, Token]], Awaitable[None]]

_HEAD: Final = 8  # bytes of a digest that tell tokens apart


TRIES: Final = 10
"""How often a change is decided anew because others were faster."""


class Swap(NamedTuple):
    """A change that is decided and not made yet: a token with its digest instead of another; None: none."""

    before: tuple[bytes, Token] | None
    after: tuple[bytes, Token] | None

    @property
    def token(self) -> Token:
        """The token that there will be; of a removal, the one that goes."""
        known = self.before if self.after is None else self.after
        assert known is not None
        return known[1]

    @property
    def name(self) -> str:
        """Of the token."""
        return self.token.name


class TokenStore:
    """Verifies API tokens. Make one with :meth:`open`."""

    def __init__(
        self,
        tokens: dict[bytes, Token],
        new_admin_token: str | None = None,
        *,
        keep: Keep | None = None,
        stand_in: bytes | None = None,
        displaced: dict[bytes, Token] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``tokens``: by the SHA-256 digest of the plain token.

        ``keep``: what keeps them when they have changed. ``stand_in``: the digest of an admin
        token that is never kept, and ``displaced``: those of that name which are, and sleep meanwhile.
        """
        self._tokens = _by_head(tokens)
        self._keeper = keep
        self._stand_in = stand_in
        self._displaced = {} if displaced is None else displaced
        self._now = now
        self._writing = asyncio.Lock()
        self._at_work: set[asyncio.Task[Token]] = set()
        self._listeners: list[Callable[[], None]] = []
        self.new_admin_token = new_admin_token
        """The plain admin token if it was made just now, to be shown once; else None."""

    @classmethod
    def open(cls, data_dir: Path | None = None, admin_token: str | None = None) -> TokenStore:
        """Read the tokens under ``data_dir`` (made if missing); None: keep nothing.

        At the first start an admin token is made, unless ``admin_token`` gives one: that
        one stands in for any that is stored, while this process runs, and is never written.

        Raises :class:`CredentialsError` when the files cannot be read or written, are
        damaged (they are left as they are), or ``admin_token`` cannot be a token.
        """
        path = None if data_dir is None else data_dir / TOKENS_FILE
        keep = None if path is None else partial(token_file.keep_tokens, path)
        stored = None if path is None else token_file.read_tokens(path)
        if admin_token is not None:
            store = cls({}, keep=keep)
            store.replace({} if stored is None else stored, admin_token)
            return store
        if stored is not None:
            return cls(stored, keep=keep)
        plain = make_token()
        tokens = {digest_of(plain): ADMIN_TOKEN}
        if path is not None:
            # The plain copy first: a crash in between must not leave a token that nobody has.
            token_file.keep_admin_token(path.parent, plain)
            token_file.write_tokens(path, tokens)
        return cls(tokens, plain, keep=keep)

    def replace(self, tokens: dict[bytes, Token], admin_token: str | None = None) -> None:
        """Know these tokens instead, by digest; ``admin_token`` stands in for any admin among them.

        Raises :class:`CredentialsError` when ``admin_token`` cannot be a token.
        """
        if admin_token is not None:
            check_chosen(admin_token)
            self._stand_in = digest_of(admin_token)
            self._displaced = {digest: token for digest, token in tokens.items() if token.name == ADMIN}
            others = {digest: token for digest, token in tokens.items() if token.name != ADMIN}
            tokens = others | {self._stand_in: ADMIN_TOKEN}
        self._tokens = _by_head(tokens)
        self._tell()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change of the tokens, also one that another worker made."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def first(self) -> tuple[bytes, Token]:
        """One of the tokens, with its digest: where there is but one, that."""
        return next(iter(self._tokens.values()))

    def verify(self, token: str) -> Token | None:
        """Whose token that is; None when it is nobody's. Takes about a microsecond."""
        try:
            digest = digest_of(token)
        except UnicodeEncodeError:
            return None
        found = self._known(digest)
        return found if found is not None and self._is_valid(found) else None

    def stands(self, token: Token) -> bool:
        """Whether a token that was verified earlier would still be."""
        return self._is_valid(token) and any(known is token for _, known in self._tokens.values())

    def seconds_left(self, token: Token) -> float:
        """Seconds until the token expires; infinite for one that does not."""
        return inf if token.expires_at is None else token.expires_at - self._now()

    def _known(self, digest: bytes) -> Token | None:
        # The head of the digest only finds the candidate; the verdict is the comparison of
        # the whole, whose time does not depend on where the two differ.
        candidate = self._tokens.get(digest[:_HEAD])
        if candidate is not None and hmac.compare_digest(candidate[0], digest):
            return candidate[1]
        return None

    def _is_valid(self, token: Token) -> bool:
        if token.expires_at is not None and self._now() >= token.expires_at:
            return False
        return not token.made_with or self._caller_of(token) is not None

    def _caller_of(self, session: Token) -> Token | None:
        """The token that a session was made with; None when it is revoked or has another secret."""
        return self._known(bytes.fromhex(session.made_with))

    def __iter__(self) -> Iterator[Token]:
        return iter(sorted((token for _, token in self._tokens.values()), key=lambda token: token.name))

    def get(self, name: str) -> Token:
        """The token with that name; raises :class:`UnknownToken`."""
        return self._find(name)[1]

    async def add(self, token: Token) -> str:
        """Make a token; return its plain text, which is nowhere else.

        Raises :class:`TokenExists`, :class:`InvalidToken` or :class:`CredentialsError`; then
        there is none.
        """
        token = token._replace(created_at=self._now())
        check_token(token)
        if token.expires_at is not None and token.expires_at <= self._now():
            raise InvalidToken("it would have expired already", "/expiresAt")
        plain = make_token()

        def decide() -> Swap:
            if any(known.name == token.name for known in self):
                raise TokenExists(f"there is a token named {token.name!r} already")
            return Swap(None, (digest_of(plain), token))

        await self._change(decide)
        return plain

    async def revoke(self, name: str) -> None:
        """End a token, at once.

        Raises :class:`UnknownToken`; :class:`LastAdmin` for the last token that may make
        others; :class:`CredentialsError` when that cannot be kept: then the token is valid as before.
        """

        def decide() -> Swap:
            known = self._find(name)
            self._check_not_last(known[1])
            return Swap(known, None)

        await self._change(decide)

    async def renew(self, name: str) -> str:
        """Give a token another secret and return it; the old one ends at once. Raises as ``revoke``."""
        plain = make_token()

        def decide() -> Swap:
            digest, token = self._find(name)
            if digest == self._stand_in:
                raise ManagedElsewhere("the settings of the broker give this token: change it there")
            return Swap((digest, token), (digest_of(plain), token._replace(created_at=self._now())))

        await self._change(decide)
        return plain

    async def offer(self, caller: Token) -> tuple[str, Token]:
        """Make a code that signs in once with the rights of ``caller``.

        Returns it and the session that it stands for, whose time is the code's until then.
        Raises :class:`~thingctl_broker.security.sign_in.NoSession`, ``TooManySessions``, or
        :class:`CredentialsError`: then there is no code.
        """
        await self._drop_ended_sessions()
        code = make_code()

        def decide() -> Swap:
            digest, _ = self._find(caller.name)
            session = offered_session(caller, digest, self._now())
            if sum(token.made_with == session.made_with for token in self) >= SESSIONS_MAX:
                raise TooManySessions(
                    f"the API token {caller.name!r} has {SESSIONS_MAX} console sessions and sign-in codes: "
                    "revoke some, or wait until some expire"
                )
            return Swap(None, (digest_of_code(code), session))

        return code, await self._change(decide)

    def offered(self, code: str) -> Token | None:
        """The session that a code stands for; None when it was used, has expired, or never was."""
        found = self._known(digest_of_code(code[:CODE_LENGTH_MAX]))
        return found if found is not None and self._is_valid(found) else None

    async def redeem(self, code: str) -> tuple[str, Token]:
        """Begin the session of a code; return its token, which is nowhere else, and what it may do.

        Raises :class:`~thingctl_broker.security.sign_in.UnknownCode`, or :class:`CredentialsError`: then the
        code is still valid.
        """
        plain = make_token()

        def decide() -> Swap:
            offered = self.offered(code)
            caller = None if offered is None else self._caller_of(offered)
            if offered is None or caller is None:
                raise UnknownCode("the sign-in code was used, has expired, or never was one")
            session = begun_session(offered, caller, self._now())
            return Swap((digest_of_code(code), offered), (digest_of(plain), session))

        return plain, await self._change(decide)

    async def _drop_ended_sessions(self) -> None:
        ended = [token.name for token in self if token.made_with and (token.expires_at or 0.0) <= self._now()]
        for name in ended:
            with contextlib.suppress(UnknownToken):  # another worker was faster
                await self._change(partial(self._removal, name))

    def _removal(self, name: str) -> Swap:
        return Swap(self._find(name), None)

    async def _change(self, decide: Callable[[], Swap]) -> Token:
        """Keep what is decided, then make it; also when the caller goes away in between.

        Returns the token that there is now, or the one that is gone.
        """
        task = asyncio.get_running_loop().create_task(self._kept_and_made(decide))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _kept_and_made(self, decide: Callable[[], Swap]) -> Token:
        async with self._writing:
            for _ in range(TRIES):
                swap = decide()
                if await self._keep(swap):
                    break
            else:
                raise CredentialsError("the tokens are changed elsewhere again and again")
            if swap.before is not None:
                self._tokens.pop(swap.before[0][:_HEAD], None)
            if swap.after is not None:
                self._tokens[swap.after[0][:_HEAD]] = swap.after
            self._tell()
            return swap.token

    def _find(self, name: str) -> tuple[bytes, Token]:
        for digest, token in self._tokens.values():
            if token.name == name:
                return digest, token
        raise UnknownToken(f"no token is named {ascii(name)[:140]}")

    def _check_not_last(self, token: Token) -> None:
        if ADMIN in token.scopes and not any(
            ADMIN in other.scopes and other.expires_at is None for other in self if other is not token
        ):
            raise LastAdmin("this is the last token with the scope admin: make another one first")

    async def _keep(self, swap: Swap) -> bool:
        """Keep the tokens as they will be; False: others have changed them, so it is to be decided anew."""
        if self._keeper is not None:
            stored = {d: token for d, token in self._tokens.values() if d != self._stand_in}
            if swap.before is not None:
                stored.pop(swap.before[0], None)
            if swap.after is not None:
                stored[swap.after[0]] = swap.after[1]
            await self._keeper(self._displaced | stored)
        return True

    async def look_again(self) -> bool:
        """Read tokens that other workers have written. Return True if the set may have changed."""
        return False


def _by_head(tokens: dict[bytes, Token]) -> dict[bytes, tuple[bytes, Token]]:
    return {digest[:_HEAD]: (digest, token) for digest, token in tokens.items()}
