"""Commands that carry a key may be sent again safely: the key finds the execution of the first time.

Pure. A key belongs to the caller that used it, and lives as long as its execution.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from thingctl_broker.errors import IdempotencyConflict

if TYPE_CHECKING:
    from thingctl_broker.commands.execution import Execution

KEY_MAX: Final = 255
"""Characters of a key."""

_KEY: Final = re.compile(rf"[!-~]{{1,{KEY_MAX}}}")

KEY_PATTERN: Final = _KEY.pattern
"""Regular expression of a whole key, without anchors."""


def is_key(text: str) -> bool:
    """Whether ``text`` can be a key: 1 to 255 visible ASCII characters."""
    return _KEY.fullmatch(text) is not None


def fingerprint(thing: str, action: str, params: bytes, ttl: int | None) -> str:
    """What makes two commands the same command, in 32 hexadecimal digits."""
    # What is no text at all has a fingerprint too: it is refused later, in words.
    text = "\0".join((thing, action, str(ttl), "")).encode(errors="surrogatepass")
    return hashlib.sha256(text + params).hexdigest()[:32]


def check_same(known: str, asked: str) -> None:
    """Raise :class:`IdempotencyConflict` when the fingerprints are of two commands."""
    if known != asked:
        raise IdempotencyConflict("the idempotency key was used for another command")


class IdempotencyKeys:
    """Executions by who sent them and under which key."""

    def __init__(self) -> None:
        self._executions: dict[tuple[str, str], Execution] = {}

    def find(self, requested_by: str, key: str, print_: str) -> Execution | None:
        """The execution that this caller's ``key`` already stands for.

        Raises :class:`IdempotencyConflict` when its command was another.
        """
        found = self._executions.get((requested_by, key))
        if found is not None:
            check_same(found.fingerprint, print_)
        return found

    def remember(self, execution: Execution) -> None:
        """Note the key of an execution, if it has one."""
        if execution.idempotency_key:
            self._executions[execution.requested_by, execution.idempotency_key] = execution

    def forget(self, execution: Execution) -> None:
        """Let the key of an execution go."""
        if execution.idempotency_key:
            self._executions.pop((execution.requested_by, execution.idempotency_key), None)
