"""Positions in the stream of changes, as ids that tell a reader nothing but where to go on.

A position counts the changes of all things. A reader with a token for some of them could count the changes
of the others by the gaps, so an id is encrypted, with a key of this process, and cannot be made up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import Final

_NONCE: Final = 8
_POSITION: Final = 8
_TAG: Final = 8
LENGTH: Final = 4 * (_NONCE + _POSITION + _TAG) // 3
"""Characters of an id."""


class EventIds:
    """Makes ids of positions, and finds the position of an id that it has made."""

    def __init__(self) -> None:
        self._key = os.urandom(32)

    def encode(self, position: int) -> bytes:
        """Return an id of a position; each call returns another one."""
        nonce = os.urandom(_NONCE)
        body = nonce + (position ^ self._pad(nonce)).to_bytes(_POSITION)
        return base64.urlsafe_b64encode(body + self._tag(body))

    def decode(self, event_id: str) -> int | None:
        """Return the position of an id; None for one of another process, or of none."""
        if len(event_id) != LENGTH:
            return None
        try:
            raw = base64.b64decode(event_id, b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        body, tag = raw[:-_TAG], raw[-_TAG:]
        if not hmac.compare_digest(tag, self._tag(body)):
            return None
        return int.from_bytes(body[_NONCE:]) ^ self._pad(body[:_NONCE])

    def _pad(self, nonce: bytes) -> int:
        return int.from_bytes(self._hash(nonce, _POSITION, b"pad"))

    def _tag(self, body: bytes) -> bytes:
        return self._hash(body, _TAG, b"tag")

    def _hash(self, message: bytes, size: int, purpose: bytes) -> bytes:
        return hashlib.blake2b(message, digest_size=size, key=self._key, person=purpose).digest()
